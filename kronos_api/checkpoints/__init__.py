"""Checkpoints: the published ones, their location on this machine, and their contents.

`registry` and `info` import no PyTorch, so that settings, routes and wire models can use them.
"""
