"""The command line: `kronos-api serve`, `check`, `predict`, ..., and operator commands.

Slow modules are imported where they are used, so that `--help` is quick. Errors that a user can
correct are one line.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kronos_api.cli import key
from kronos_api.cli.check import check
from kronos_api.cli.fetch import fetch
from kronos_api.cli.mcp import mcp
from kronos_api.cli.operate import block, drain, log_level
from kronos_api.cli.predict import predict
from kronos_api.cli.serve import serve
from kronos_api.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, check, predict, fetch, mcp, drain, log_level, block):
    app.command()(command)
app.add_typer(key.app, name="key")


def main() -> None:
    """Run the command that the arguments name."""
    app(prog_name="kronos-api")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kronos-api {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Forecasts of candlestick series."""
    del version
