"""Types that describe checkpoints. They import no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Kind = Literal["model", "tokenizer"]

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
"""The two files of a checkpoint's folder."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint in a local folder.

    `id` is its hub id, or the folder as the settings name it. `sha256` is the digest that the
    weights file must have; None where no digest was published. `demo` marks the bundled one.
    """

    kind: Kind
    id: str
    folder: Path
    revision: str | None = None
    sha256: str | None = None
    demo: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A loaded model or tokenizer: its trained parameters, the sha256 of its weights file."""

    id: str
    revision: str | None
    sha256: str
    parameters: int

    @property
    def version(self) -> str:
        """The id with the revision, or with the first 12 digits of the digest."""
        return f"{self.id}@{self.revision or self.sha256[:12]}"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine runs, and on which device.

    `max_context` is in candles. `kernels`: what computes between the GEMMs, `plain` or `compiled`.
    `device_warning` is set if a GPU exists but is not used, `dtype_warning` if int8 is not used
    though a setting asks for it.
    """

    model: Part
    tokenizer: Part
    max_context: int
    dtype: str
    device: str
    demo: bool
    kernels: str = "plain"
    device_warning: str | None = None
    dtype_warning: str | None = None
