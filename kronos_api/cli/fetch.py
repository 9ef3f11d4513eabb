"""`kronos-api fetch`: bring a checkpoint and its tokenizer to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kronos_api.cli.console import one_line_errors
from kronos_api.errors import StartupError

if TYPE_CHECKING:
    from kronos_api.engine.checkpoint import Kind, Source


def fetch(
    model: Annotated[str, typer.Argument(help="Hub id, optionally with @revision.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="The model's tokenizer; known for published models.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder to fill; else the hub's local cache.")
    ] = None,
) -> None:
    """Download a model and its tokenizer, check them, and say how to serve them."""
    with one_line_errors():
        from kronos_api.engine.checkpoint import PUBLISHED, inspect

        published = PUBLISHED.get(model.partition("@")[0])
        second = tokenizer or (published.tokenizer if published else None)
        if second is None:
            raise StartupError(f"{model} is no published model: name its --tokenizer")
        inspect(_download(model, "model", to), _download(second, "tokenizer", to))
    typer.echo("Both are here and fit each other. To serve them:")
    if to is not None:
        typer.echo(f"  KRONOS_MODEL_PATH={to.resolve()} kronos-api serve")
    else:
        also = f" KRONOS_TOKENIZER_ID={tokenizer}" if tokenizer else ""
        typer.echo(f"  KRONOS_MODEL_ID={model}{also} kronos-api serve")


def _download(source: str, kind: Kind, to: Path | None) -> Source:
    """Fetch one checkpoint, with the hub library's progress bars."""
    from huggingface_hub import snapshot_download

    from kronos_api.engine.checkpoint import CONFIG, PUBLISHED, WEIGHTS, Source

    name, _, given = source.partition("@")
    revision = given or (PUBLISHED[name].revision if name in PUBLISHED else None)
    typer.echo(f"{kind} {name}" + (f" at {revision}" if revision else ""), err=True)
    folder = None if to is None else to / kind
    try:
        path = snapshot_download(
            name,
            revision=revision,
            local_dir=folder,
            allow_patterns=[CONFIG, WEIGHTS],
        )
    # The library raises errors of many kinds: its own, its HTTP client's, the system's.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].removeprefix("Got: ")
        raise StartupError(f"{kind} {name} could not be fetched: {reason}") from None
    return Source(kind, name, Path(path), revision)
