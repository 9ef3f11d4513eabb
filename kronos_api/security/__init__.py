"""Whose call it is: told by the address of a connection's peer, not by what a request says."""
