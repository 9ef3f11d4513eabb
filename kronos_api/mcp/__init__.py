"""Tools for agents by the Model Context Protocol (MCP), over HTTP and stdio.

A call of a tool is a request of the service's own routes, so rules, limits and errors are theirs.
Most modules need the extra `mcp`, and are imported only where tools are served.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kronos_api.errors import StartupError

MCP_PATH: Final = "/mcp"


@contextmanager
def mcp_installed(asked: str) -> Iterator[None]:
    """Raise `StartupError` if the extra is missing; `asked` says what needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise StartupError(
            f"{asked}, but the package mcp is not installed: pip install 'kronos-api[mcp]'"
        ) from None
