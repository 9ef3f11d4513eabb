"""Checkpoints: which are published, where they lie, what they hold.

`registry` and `info` import no PyTorch, so that settings, routes and wire models can use them.
"""
