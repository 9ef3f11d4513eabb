"""The middleware of every request: pure ASGI, one class per file."""
