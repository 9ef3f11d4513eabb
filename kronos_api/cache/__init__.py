"""Stored responses: of seeded requests, and of requests with an Idempotency-Key."""
