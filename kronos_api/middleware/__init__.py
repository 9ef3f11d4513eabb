"""What every request passes through: pure ASGI, one class per file."""
