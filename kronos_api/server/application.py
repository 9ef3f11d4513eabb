"""The application that Gunicorn runs, with our master."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from gunicorn.app.base import BaseApplication
from starlette.types import ASGIApp

from kronos_api.server.arbiter import Arbiter


class LoggedSocket(socket.socket):
    """A socket that Gunicorn logs as an address."""

    def __str__(self) -> str:
        host, port, *_ = self.getsockname()
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Application(BaseApplication):
    """What Gunicorn runs; it takes over the socket `listener`.

    `load` makes the application in each worker; `options` are Gunicorn's settings. The master ends
    when no worker has served for `startup_timeout` seconds. It calls `maintain` whenever it looks
    at its workers.
    """

    def __init__(
        self,
        load: Callable[[], ASGIApp],
        options: Mapping[str, Any],
        listener: socket.socket,
        startup_timeout: float = 120,
        *,
        maintain: Callable[[], None] = lambda: None,
    ) -> None:
        self._load = load
        self.startup_timeout = startup_timeout
        self.maintain = maintain
        self._options = options
        self.listener = LoggedSocket(fileno=listener.detach())
        super().__init__()

    def load_config(self) -> None:
        """Set the options."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        """Called in each worker."""
        return self._load()

    def run(self) -> None:
        """Serve until stopped; raises SystemExit at the end."""
        Arbiter(self).run()
