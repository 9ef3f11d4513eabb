"""Checkpoints: where they come from, what is published about them, and loading them."""
