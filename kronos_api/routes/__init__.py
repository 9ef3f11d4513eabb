"""The paths of the service; each module makes a router from plain values."""
