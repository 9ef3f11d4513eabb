"""Finding, checking and loading checkpoints: a hub id, a local folder, or the bundled one.

A checkpoint is a folder with `config.json` and `model.safetensors`. Loading is strict: a tensor
that is missing, unexpected or of another shape is an error that names it. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from kronos_api.errors import StartupError
from kronos_api.model import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig

Kind = Literal["model", "tokenizer"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
BUNDLED_ID = "kronos-demo"
BUNDLED = Path(__file__).parent.parent / "assets" / BUNDLED_ID


@dataclass(frozen=True, slots=True)
class Published:
    """What is known of a published checkpoint; its digest is checked against what was loaded."""

    sha256: str
    revision: str | None = None
    tokenizer: str | None = None
    max_context: int | None = None


PUBLISHED = {
    "NeoQuasar/Kronos-mini": Published(
        sha256="a7d5f37e2e9fbd9891f7d7d4f72574512dd1f704fee14223e0a8cd0fbf54197c",
        tokenizer="NeoQuasar/Kronos-Tokenizer-2k",
        max_context=2048,
    ),
    "NeoQuasar/Kronos-small": Published(
        sha256="b082dfcbd8e8c142a725c8bbb99781802f38fec81210e13479effb32b3c3e020",
        revision="901c26c1332695a2a8f243eb2f37243a37bea320",
        tokenizer="NeoQuasar/Kronos-Tokenizer-base",
        max_context=512,
    ),
    "NeoQuasar/Kronos-base": Published(
        sha256="abff193acab6db1a0368e9773e75799d11403b6d054ee6d5f0a11aeabc5f4b83",
        tokenizer="NeoQuasar/Kronos-Tokenizer-base",
        max_context=512,
    ),
    "NeoQuasar/Kronos-Tokenizer-2k": Published(
        sha256="b97ec46b3b72160509e289183eaf7bdf5f0dac5bb9b49522f6d46638a99a8717",
    ),
    "NeoQuasar/Kronos-Tokenizer-base": Published(
        sha256="59d85f6af76a2c3b8240ea06cb21db4213b4eeca053f246b23e29cf832fc6bee",
        revision="0e0117387f39004a9016484a186a908917e22426",
    ),
}
DEFAULT_CONTEXT = 512


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that lies in a local folder, and what it is called."""

    kind: Kind
    id: str
    folder: Path
    revision: str | None = None
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
    folder = Path(source).expanduser()
    if source.startswith(("/", ".", "~")) or folder.is_dir():
        if not folder.is_dir():
            raise StartupError(f"{kind} folder {source} does not exist")
        return Source(kind, source, folder)
    name, _, revision = source.partition("@")
    if name.count("/") != 1:
        raise StartupError(f"{kind} {source!r} is neither a folder nor a hub id like owner/name")
    pinned = revision or (PUBLISHED[name].revision if name in PUBLISHED else None)
    return _download(name, pinned, kind, timeout)


def _download(name: str, revision: str | None, kind: Kind, timeout: float) -> Source:
    """Fetch from the hub, or take from its local cache; give up after `timeout` seconds."""
    outcome: list[Source | Exception] = []

    def fetch() -> None:
        from huggingface_hub import snapshot_download

        try:
            folder = Path(
                snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
            )
        except Exception as failure:
            outcome.append(failure)
        else:
            # The cache names a snapshot's folder after its commit.
            outcome.append(Source(kind, name, folder, revision or folder.name))

    # A daemon, because a hub that never answers must not keep the process alive.
    thread = threading.Thread(target=fetch, name=f"fetch-{kind}", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise StartupError(f"{kind} {name} could not be fetched from the hub in {timeout:g} s")
    if isinstance(outcome[0], Exception):
        reason = str(outcome[0]).strip().splitlines() or [type(outcome[0]).__name__]
        raise StartupError(f"{kind} {name} could not be fetched from the hub: {reason[0]}")
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
    path = source.folder / CONFIG
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
        with torch.device("meta"):
            if source.kind == "model":
                return Kronos(KronosConfig.from_json(values))
            return KronosTokenizer(TokenizerConfig.from_json(values))
    except FileNotFoundError:
        raise StartupError(f"{source.kind} {source.id}: {path} is missing") from None
    except (OSError, ValueError) as failure:
        raise StartupError(f"{source.kind} {source.id}: {path} is not usable: {failure}") from None


def _check_tensors(source: Source, module: nn.Module) -> None:
    """Compare the names, shapes and types in the file's header with the module's."""
    path = source.folder / WEIGHTS
    where = f"{source.kind} {source.id}: {path}"
    if not path.is_file():
        raise StartupError(f"{where} is missing")
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
    path = source.folder / WEIGHTS
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    published = PUBLISHED.get(source.id)
    if published and source.revision == published.revision and digest != published.sha256:
        raise StartupError(
            f"{source.kind} {source.id}: {path} has sha256 {digest},"
            f" published is {published.sha256}"
        )
    # Copied, because the file is only mapped, and may be replaced under a running service.
    state = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in load_file(path).items()
    }
    module.load_state_dict(state, strict=True, assign=True)
    module.eval().requires_grad_(False)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Part(source.id, source.revision, digest, parameters)
