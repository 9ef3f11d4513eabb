"""Inference: checkpoints in, sample paths out. Knows torch and NumPy, nothing of the web."""
