"""Output of commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from kronos_api.errors import KronosError, StartupError

OFF_TERMINAL: Final = 120
"""Columns of a table that is written to a file or a pipe."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print errors that a user can correct as one line, without a traceback; exit status 1."""
    try:
        yield
    except (StartupError, KronosError) as error:
        note(str(error))
        raise typer.Exit(1) from None


def note(line: str) -> None:
    """Print a line that is not part of the result."""
    typer.echo(f"kronos-api: {line}", err=True)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show on a terminal that `what` is running, and for how long."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        bar.add_task(what, total=None)
        yield


@contextmanager
def progress_of(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show on a terminal how many of `total` are done: those for which the function was called."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    off = not console.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=off
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def results() -> Console:
    """The console for results."""
    return Console(width=None if sys.stdout.isatty() else OFF_TERMINAL, highlight=False)


def log_to_stderr() -> None:
    """Log errors alone, to stderr; stdout is for results."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
