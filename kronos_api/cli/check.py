"""`kronos-api check`: are the settings and the checkpoints good?"""

from __future__ import annotations

import typer

from kronos_api.cli.console import log_to_stderr, one_line_errors
from kronos_api.config import load_settings


def check() -> None:
    """Check settings and checkpoints as a start does, without loading. Exit status 1: they are bad.

    Settings are the environment's. A model that is named by hub id is fetched if it is not here.
    """
    log_to_stderr()
    with one_line_errors():
        settings = load_settings()

        from kronos_api.app import create_app
        from kronos_api.service import Checkpoints

        create_app(settings)
        checkpoints = Checkpoints(settings, workers=1)
        checkpoints.find()
        assert checkpoints.sources is not None
        model, tokenizer = checkpoints.sources
    typer.echo(f"kronos-api: the settings are good, and so are {model.id} and {tokenizer.id}")
