"""The server: master, workers, and connections with their deadlines."""
