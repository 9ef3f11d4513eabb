"""The shape of a checkpoint, read strictly from its `config.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Final, Self

LARGEST: Final = {
    "n_layers": 256,
    "n_enc_layers": 256,
    "n_dec_layers": 256,
    "d_model": 16_384,
    "n_heads": 256,
    "ff_dim": 65_536,
    "s1_bits": 20,
    "s2_bits": 20,
    "d_in": 64,
    "group_size": 20,
}
"""Bounds far above every published checkpoint. Beyond them, even modules without allocated weights
take minutes to build, or exceed PyTorch's sizes."""
TYPES: Final = {"int": (int,), "bool": (bool,), "float": (int, float)}
"""JSON values that each declared type accepts."""


@dataclass(frozen=True, slots=True)
class _Config:
    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from the parsed `config.json`.

        Raises:
            ValueError: a key is missing, unknown, of the wrong type or out of bounds; the message
                names it.
        """
        declared = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(values) - set(declared)):
            raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(declared)}")
        for name, field in declared.items():
            if name in values:
                _check_value(name, str(field.type), values[name])
            elif field.default is MISSING:
                raise ValueError(f"missing key {name!r}, of type {field.type}")
        return cls(**values)

    def to_json(self) -> dict[str, int | float | bool]:
        """Return the values to write as `config.json`."""
        return asdict(self)

    def _check_heads(self, d_model: int, n_heads: int) -> None:
        if n_heads < 1 or d_model < 1 or d_model % (2 * n_heads):
            raise ValueError(
                f"'d_model' must be a multiple of 2 x {n_heads} heads; it is {d_model}"
            )


def _check_value(name: str, declared: str, value: Any) -> None:
    """Check the value of one key; `declared` is its type: int, float or bool."""
    if type(value) not in TYPES[declared]:
        raise ValueError(f"{name!r} must be of type {declared}; it is {value!r}")
    if declared == "int" and not 1 <= value <= LARGEST[name]:
        raise ValueError(f"{name!r} must be from 1 to {LARGEST[name]}; it is {value}")
    if declared == "float" and not math.isfinite(value):
        raise ValueError(f"{name!r} must be finite; it is {value}")


@dataclass(frozen=True, slots=True)
class KronosConfig(_Config):
    """Shape of the autoregressive model."""

    s1_bits: int
    s2_bits: int
    n_layers: int
    d_model: int
    n_heads: int
    ff_dim: int
    ffn_dropout_p: float = 0.0
    attn_dropout_p: float = 0.0
    resid_dropout_p: float = 0.0
    token_dropout_p: float = 0.0
    learn_te: bool = True

    def __post_init__(self) -> None:
        self._check_heads(self.d_model, self.n_heads)
        self._check_heads(self.d_model, DEPENDENCY_HEADS)
        if not self.learn_te:
            raise ValueError(
                "'learn_te' must be true; it is false: fixed time embeddings are not implemented"
            )


@dataclass(frozen=True, slots=True)
class TokenizerConfig(_Config):
    """Shape of the tokenizer; beta, gamma0, gamma, zeta and group_size affect training only."""

    d_in: int
    d_model: int
    n_heads: int
    ff_dim: int
    n_enc_layers: int
    n_dec_layers: int
    s1_bits: int
    s2_bits: int
    ffn_dropout_p: float = 0.0
    attn_dropout_p: float = 0.0
    resid_dropout_p: float = 0.0
    beta: float = 0.05
    gamma0: float = 1.0
    gamma: float = 1.1
    zeta: float = 0.05
    group_size: int = 4

    def __post_init__(self) -> None:
        self._check_heads(self.d_model, self.n_heads)
        if self.d_in != 6:
            raise ValueError(f"'d_in' must be 6 (open to amount); it is {self.d_in}")


DEPENDENCY_HEADS = 4
"""Attention heads of the dependency-aware layer; `n_heads` does not apply to it."""
