"""Finding, checking and loading checkpoints: a hub id, a local folder, or the bundled one.

A checkpoint is a folder with `config.json` and `model.safetensors`. Loading is strict: a tensor
that is missing, unexpected or of another shape is an error that names it. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from kronos_api.checkpoints.registry import PUBLISHED, split
from kronos_api.errors import StartupError
from kronos_api.model import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig

Kind = Literal["model", "tokenizer"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
BUNDLED_ID = "kronos-demo"
BUNDLED = Path(__file__).parent.parent / "assets" / BUNDLED_ID


DEFAULT_CONTEXT = 512
LARGEST_CONFIG: Final = 1 << 20
"""Bytes of a `config.json`, at most; published ones have less than a thousand."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that lies in a local folder, and what it is called."""

    kind: Kind
    id: str
    folder: Path
    revision: str | None = None
    sha256: str | None = None
    """What the weights file must have, where that is known."""
    demo: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What was loaded: `parameters` counts trained numbers, `sha256` is of the weights file."""

    id: str
    revision: str | None
    sha256: str
    parameters: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine runs, and on what."""

    model: Part
    tokenizer: Part
    max_context: int
    dtype: str
    device: str
    demo: bool
    device_warning: str | None = None


def locate(source: str | None, kind: Kind, *, timeout: float) -> Source:
    """Find a checkpoint and bring it to this machine.

    Args:
        source: a folder, a hub id with an optional `@revision`, or None for the bundled one.
        timeout: seconds that a download may take.

    Raises:
        StartupError: it is not there; the message is one line.
    """
    if source is None:
        return Source(kind, BUNDLED_ID, BUNDLED / kind, demo=True)
    try:
        folder = Path(source).expanduser()
        there = folder.is_dir()
    except (OSError, RuntimeError) as failure:  # too long, not permitted; a user without a home
        raise StartupError(f"{kind} folder {source} cannot be found: {failure}") from None
    if source.startswith(("/", ".", "~")) or there:
        if not there:
            raise StartupError(f"{kind} folder {source} does not exist")
        return Source(kind, source, folder)
    if split(source)[0].count("/") != 1:
        raise StartupError(f"{kind} {source!r} is neither a folder nor a hub id like owner/name")
    return _download_in_time(source, kind, timeout)


def pinned(source: str) -> str | None:
    """The revision at which a hub id is fetched; None: the newest."""
    name, revision = split(source)
    return revision or (PUBLISHED[name].revision if name in PUBLISHED else None)


def download(source: str, kind: Kind, to: Path | None = None) -> Source:
    """Fetch a hub id into the folder `to`, or else into the hub's cache if it is not there yet.

    Raises:
        StartupError: it cannot be had; the message is one line.
    """
    from huggingface_hub import snapshot_download

    # Its lines go where all others go, and nowhere else.
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
    known = PUBLISHED.get(name)
    # Another revision, asked for by name, may hold other weights.
    expected = known.sha256 if known and split(source)[1] in (None, known.revision) else None
    # The cache names a snapshot's folder after its commit.
    return Source(kind, name, folder, revision or (None if to else folder.name), expected)


def _download_in_time(source: str, kind: Kind, timeout: float) -> Source:
    """`download`, given up after `timeout` seconds."""
    outcome: list[Source | StartupError] = []

    def fetch() -> None:
        try:
            outcome.append(download(source, kind))
        except StartupError as failure:
            outcome.append(failure)

    # A daemon, because a hub that never answers must not keep the process alive.
    thread = threading.Thread(target=fetch, name=f"fetch-{kind}", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        name = split(source)[0]
        raise StartupError(f"{kind} {name} could not be fetched from the hub in {timeout:g} s")
    if isinstance(outcome[0], StartupError):
        raise outcome[0]
    return outcome[0]


def inspect(model: Source, tokenizer: Source) -> None:
    """Check that both checkpoints are whole and fit each other, without reading their weights.

    Raises:
        StartupError: naming the checkpoint and what is wrong with it, in one line.
    """
    predictor, codec = _skeleton(model), _skeleton(tokenizer)
    for source, module in ((model, predictor), (tokenizer, codec)):
        _check_tensors(source, module)
    wanted = (predictor.config.s1_bits, predictor.config.s2_bits)
    given = (codec.config.s1_bits, codec.config.s2_bits)
    if wanted != given:
        raise StartupError(
            f"tokenizer {tokenizer.id} makes tokens of {given[0]}+{given[1]} bits,"
            f" model {model.id} reads {wanted[0]}+{wanted[1]}"
        )


def verify(source: Source) -> str:
    """The sha256 of a checkpoint's weights file.

    Raises:
        StartupError: it is not the one that was published.
    """
    path = source.folder / WEIGHTS
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256 is not None and digest != source.sha256:
        raise StartupError(
            f"{source.kind} {source.id}: {path} has sha256 {digest}, published is"
            f" {source.sha256}; if another is meant, name its @revision"
        )
    return digest


def load_model(source: Source) -> tuple[Kronos, Part]:
    """Load a predictor in float32, ready for inference."""
    module = _skeleton(source)
    assert isinstance(module, Kronos)
    return module, _load(source, module)


def load_tokenizer(source: Source) -> tuple[KronosTokenizer, Part]:
    """Load a tokenizer in float32, ready for inference."""
    module = _skeleton(source)
    assert isinstance(module, KronosTokenizer)
    return module, _load(source, module)


def context_of(source: Source) -> int:
    """Context length that a predictor was trained for."""
    published = PUBLISHED.get(source.id)
    return (published and published.max_context) or DEFAULT_CONTEXT


def _skeleton(source: Source) -> Kronos | KronosTokenizer:
    """The module that a checkpoint's config describes, without memory for its weights."""
    path = _file(source, CONFIG)
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"larger than {LARGEST_CONFIG} bytes")
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
        with torch.device("meta"):
            if source.kind == "model":
                return Kronos(KronosConfig.from_json(values))
            return KronosTokenizer(TokenizerConfig.from_json(values))
    except RecursionError:
        raise StartupError(f"{_named(source, path)} is not usable: nested too deeply") from None
    # PyTorch raises RuntimeError for a shape that it cannot describe.
    except (OSError, ValueError, ArithmeticError, RuntimeError) as failure:
        lines = str(failure).splitlines() or [type(failure).__name__]
        raise StartupError(f"{_named(source, path)} is not usable: {lines[0]}") from None


def _named(source: Source, path: Path) -> str:
    return f"{source.kind} {source.id}: {path}"


def _file(source: Source, name: str) -> Path:
    """The path of a checkpoint's file.

    Raises:
        StartupError: it is not there, or is a folder, a pipe or a device, whose reading may never
            end.
    """
    path = source.folder / name
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise StartupError(f"{_named(source, path)} is missing") from None
    except OSError as failure:
        raise StartupError(f"{_named(source, path)}: {failure.strerror}") from None
    if not regular:
        raise StartupError(f"{_named(source, path)} is not a regular file")
    return path


def _check_tensors(source: Source, module: nn.Module) -> None:
    """Compare the names, shapes and types in the file's header with the module's."""
    path = _file(source, WEIGHTS)
    where = _named(source, path)
    expected = module.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (s.get_shape(), s.get_dtype()) for name, s in slices.items()}
    except (OSError, SafetensorError) as failure:
        raise StartupError(f"{where} is not a whole safetensors file: {failure}") from None
    if missing := sorted(set(expected) - set(found)):
        raise StartupError(f"{where} lacks the tensor {missing[0]} ({len(missing)} missing)")
    if extra := sorted(set(found) - set(expected)):
        raise StartupError(f"{where} has an unexpected tensor {extra[0]} ({len(extra)} in all)")
    for name, tensor in expected.items():
        shape, dtype = found[name]
        if list(tensor.shape) != list(shape):
            raise StartupError(f"{where}: {name} has shape {shape}, not {list(tensor.shape)}")
        allowed = ("F32", "F16", "BF16") if tensor.is_floating_point() else ("I64",)
        if dtype not in allowed:
            raise StartupError(f"{where}: {name} is of type {dtype}, not {' or '.join(allowed)}")


def _load(source: Source, module: nn.Module) -> Part:
    _check_tensors(source, module)
    digest = verify(source)
    # Copied, because the file is only mapped, and may be replaced under a running service.
    state = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in load_file(source.folder / WEIGHTS).items()
    }
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise StartupError(
                f"{_named(source, source.folder / WEIGHTS)}: {name} holds NaN or infinity"
                f" ({count} of {tensor.numel()} values)"
            )
    module.load_state_dict(state, strict=True, assign=True)
    module.eval().requires_grad_(False)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Part(source.id, source.revision, digest, parameters)
