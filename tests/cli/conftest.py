"""Commands run in this process."""

import signal
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from kronos_api.cli import app

Command = Callable[..., Result]


@pytest.fixture
def command() -> Iterator[Command]:
    """Run `kronos-api` with some arguments; signal handlers are put back afterwards."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda *arguments: CliRunner().invoke(app, [str(part) for part in arguments])
    for number, handler in signals.items():
        signal.signal(number, handler)
