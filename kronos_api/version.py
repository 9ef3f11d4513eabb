"""The version of the package; imported by every module that states it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kronos-api")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.1.0"
