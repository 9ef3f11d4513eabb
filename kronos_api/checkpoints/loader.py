"""Checking and loading checkpoints from local folders.

Loading is strict: a tensor that is missing, unexpected or of another shape is an error that names
it. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from kronos_api.checkpoints.info import CONFIG, WEIGHTS, Part, Source
from kronos_api.checkpoints.registry import PUBLISHED
from kronos_api.errors import StartupError
from kronos_api.model import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig

DEFAULT_CONTEXT: Final = 512
"""Candles of context of a model that is not in the registry."""
LARGEST_CONFIG: Final = 1 << 20
"""Bytes of a `config.json`, at most; published ones have less than a thousand."""


class _Uninitialised(TorchFunctionMode):
    """Modules that are made in this context have weights that nothing has written.

    The kernel gives memory only to pages that are written. PyTorch's meta device would do as well,
    but it imports SymPy: 74 MB in every process, and half a second.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `function` unless it initialises weights."""
        del types
        if getattr(function, "__module__", None) == "torch.nn.init":
            return None
        return function(*args, **(kwargs or {}))


def inspect(model: Source, tokenizer: Source) -> None:
    """Check config and tensor names, shapes and types of both, and that their token sizes agree.

    The weights themselves are not read.

    Raises:
        StartupError: one line with the checkpoint, the file and what is wrong in it.
    """
    bits = []
    for source in (model, tokenizer):
        module = _skeleton(source)
        _check_tensors(source, module)
        bits.append((module.config.s1_bits, module.config.s2_bits))
    (wanted1, wanted2), (found1, found2) = bits
    if (found1, found2) != (wanted1, wanted2):
        raise StartupError(
            f"tokenizer {tokenizer.id} makes tokens of {found1}+{found2} bits, model {model.id}"
            f" reads {wanted1}+{wanted2}: name the tokenizer that the model was trained with"
        )


def verify(source: Source) -> str:
    """The sha256 of a checkpoint's weights file, compared with the published one.

    Raises:
        StartupError: the two differ.
    """
    path = source.folder / WEIGHTS
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256 is not None and digest != source.sha256:
        raise StartupError(
            f"{source.kind} {source.id}: {path} has sha256 {digest}, published is"
            f" {source.sha256}; fetch it again, or name another @revision"
        )
    return digest


def load_model(source: Source) -> tuple[Kronos, Part]:
    """Load a model in float32, ready for inference; raises `StartupError`."""
    module = _skeleton(source)
    assert isinstance(module, Kronos)
    return module, _load(source, module)


def load_tokenizer(source: Source) -> tuple[KronosTokenizer, Part]:
    """Load a tokenizer in float32, ready for inference; raises `StartupError`."""
    module = _skeleton(source)
    assert isinstance(module, KronosTokenizer)
    return module, _load(source, module)


def context_of(source: Source) -> int:
    """Candles of context that a model was trained with, by its hub id."""
    published = PUBLISHED.get(source.id)
    return (published and published.max_context) or DEFAULT_CONTEXT


def _skeleton(source: Source) -> Kronos | KronosTokenizer:
    """The module that `config.json` describes; no memory is used for its weights."""
    path = _file(source, CONFIG)
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"larger than {LARGEST_CONFIG} bytes")
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
        with _Uninitialised():
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
        StartupError: it is missing, or not a regular file: reading a pipe or a device might never
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
    # Copied: the file is memory-mapped, and an operator can replace it while the service runs.
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
