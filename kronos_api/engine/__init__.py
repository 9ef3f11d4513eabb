"""Inference: packed weights and a KV cache; a request in, sample paths out. Knows no HTTP."""
