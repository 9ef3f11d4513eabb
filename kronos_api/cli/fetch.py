"""`kronos-api fetch`: download a model and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kronos_api.checkpoints.registry import split, tokenizer_of
from kronos_api.cli.console import one_line_errors
from kronos_api.errors import StartupError

if TYPE_CHECKING:
    from kronos_api.checkpoints.info import Kind, Source


def fetch(
    model: Annotated[str, typer.Argument(help="Hub id, optionally with @revision.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Hub id of the model's tokenizer; not needed for published models."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder to write to; default: the hub's local cache.")
    ] = None,
) -> None:
    """Download a model and its tokenizer, check them, and print how to serve them."""
    with one_line_errors():
        from kronos_api.checkpoints.loader import inspect, verify

        second = tokenizer or tokenizer_of(model)
        if second is None:
            raise StartupError(
                f"{model} is not a published model: name its tokenizer, such as --tokenizer"
                " NeoQuasar/Kronos-Tokenizer-base"
            )
        sources = _download(model, "model", to), _download(second, "tokenizer", to)
        inspect(*sources)
        for source in sources:
            verify(source)
    typer.echo("Downloaded and checked; model and tokenizer match. To serve them:")
    if to is not None:
        typer.echo(f"  KRONOS_MODEL_PATH={to.resolve()} kronos-api serve")
    else:
        also = f" KRONOS_TOKENIZER_ID={tokenizer}" if tokenizer else ""
        typer.echo(f"  KRONOS_MODEL_ID={model}{also} kronos-api serve")


def _download(source: str, kind: Kind, to: Path | None) -> Source:
    """Fetch one checkpoint, with the hub library's progress bars."""
    from kronos_api.checkpoints.hub import download, pinned

    revision = pinned(source)
    typer.echo(f"{kind} {split(source)[0]}" + (f" at {revision}" if revision else ""), err=True)
    return download(source, kind, None if to is None else to / kind)
