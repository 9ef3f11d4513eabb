"""From the name of a checkpoint to its folder on this machine: bundled, local, or from the hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from kronos_api.checkpoints.info import CONFIG, WEIGHTS, Kind, Source
from kronos_api.checkpoints.registry import PUBLISHED, split, tokenizer_of
from kronos_api.daemon_thread import run_in_daemon_thread
from kronos_api.errors import StartupError

BUNDLED_ID: Final = "kronos-demo"
BUNDLED: Final = Path(__file__).parent.parent / "assets" / BUNDLED_ID


def locate(source: str | None, kind: Kind, *, timeout: float) -> Source:
    """Find a checkpoint; download it if it is named by hub id and not in the cache.

    Args:
        source: a folder, a hub id with an optional `@revision`, or None for the bundled one.
        timeout: seconds that a download may take.

    Raises:
        StartupError: the folder does not exist or the download failed; the message is one line.
    """
    if source is None:
        return Source(kind, BUNDLED_ID, BUNDLED / kind, demo=True)
    try:
        folder = Path(source).expanduser()
        exists = folder.is_dir()
    except (OSError, RuntimeError) as failure:  # too long, not permitted; a user without a home
        raise StartupError(f"{kind} folder {source} cannot be found: {failure}") from None
    if source.startswith(("/", ".", "~")) or exists:
        if not exists:
            raise StartupError(f"{kind} folder {source} does not exist")
        return Source(kind, source, folder)
    if split(source)[0].count("/") != 1:
        raise StartupError(
            f"{kind} {source!r} is neither a folder nor a hub id such as NeoQuasar/Kronos-small"
        )
    # A hub that never responds must not keep the process alive.
    fetching = run_in_daemon_thread(lambda: download(source, kind), f"fetch-{kind}")
    try:
        return fetching.result(timeout)
    except TimeoutError:
        raise StartupError(
            f"{kind} {split(source)[0]} could not be fetched from the hub in {timeout:g} s"
        ) from None


def locate_both(
    model: str | None, tokenizer: str | None, *, timeout: float
) -> tuple[Source, Source]:
    """Find a model and its tokenizer.

    Args:
        model: as for `locate`, or a folder that holds `model/` and `tokenizer/`.
        tokenizer: as for `locate`; None for the one in that folder, or the one that a published
            model was trained with.
        timeout: seconds that each download may take.

    Raises:
        StartupError: one is not found, or the tokenizer is not known.
    """
    if model is not None and tokenizer is None:
        try:
            folder = Path(model).expanduser()
            holds_both = (folder / "model").is_dir()
        except (OSError, RuntimeError) as error:  # no such user, a name too long, no permission
            raise StartupError(f"model {model!r} cannot be looked up: {error}") from None
        if holds_both:
            model, tokenizer = str(folder / "model"), str(folder / "tokenizer")
        elif (tokenizer := tokenizer_of(model)) is None:
            raise StartupError(
                f"{model} is neither a published model nor a folder with model/ and tokenizer/:"
                " name its tokenizer too"
            )
    return (
        locate(model, "model", timeout=timeout),
        locate(tokenizer, "tokenizer", timeout=timeout),
    )


def pinned(source: str) -> str | None:
    """The revision at which a hub id is fetched; None: the newest."""
    name, revision = split(source)
    return revision or (PUBLISHED[name].revision if name in PUBLISHED else None)


def download(source: str, kind: Kind, to: Path | None = None) -> Source:
    """Fetch a hub id into the folder `to`, or into the hub's cache, where it may already lie.

    Raises:
        StartupError: the hub refused, failed or cannot be reached; the message is one line.
    """
    from huggingface_hub import snapshot_download

    # The library's own handler would write each of its lines a second time.
    logging.getLogger("huggingface_hub").handlers.clear()
    name, revision = split(source)[0], pinned(source)
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, local_dir=to, allow_patterns=[CONFIG, WEIGHTS]
            )
        )
    # The library raises errors of many kinds: its own, its HTTP client's, the system's.
    except Exception as failure:
        lines = str(failure).strip().splitlines() or [type(failure).__name__]
        reason = lines[0].removeprefix("Got: ")
        raise StartupError(f"{kind} {name} could not be fetched from the hub: {reason}") from None
    published = PUBLISHED.get(name)
    # Another revision, named explicitly, may hold other weights.
    known = published is not None and split(source)[1] in (None, published.revision)
    return Source(
        kind,
        name,
        folder,
        # The cache names a snapshot's folder after its commit.
        revision=revision or (None if to else folder.name),
        sha256=published.sha256 if published and known else None,
    )
