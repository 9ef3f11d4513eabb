"""The server's side of a connection: what it waits for, and how long."""
