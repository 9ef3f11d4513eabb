"""Identifies callers by the address of the connection's peer, never by the request."""
