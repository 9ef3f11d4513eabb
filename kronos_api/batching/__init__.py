"""Continuous batching: tickets, the scheduler, its start policy, and the engine's thread."""
