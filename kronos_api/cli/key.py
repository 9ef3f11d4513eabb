"""`kronos-api key`: API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from kronos_api.cli.console import note, one_line_errors

app = typer.Typer(no_args_is_help=True)


@app.callback()
def key() -> None:
    """API keys of callers."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the caller, for its quota and in metrics.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="predict or metrics; may be repeated.")
    ] = None,
) -> None:
    """Make an API key.

    The key goes to stderr, once: it cannot be recovered. Its line for KRONOS_API_KEYS_FILE goes to
    stdout: `kronos-api key new shop >> api-keys`.
    """
    from kronos_api.security.api_keys import PREDICT, new_key

    with one_line_errors():
        made, listed = new_key(name, scope or [PREDICT])
    note(f"the key of {name}, shown once: {made}")
    typer.echo(listed.line())
