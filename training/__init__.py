"""Trains and evaluates the bundled checkpoint; not part of the installed package."""
