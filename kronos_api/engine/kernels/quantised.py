"""Rows quantised to unsigned bytes, the form in which int8 linear layers take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

ZERO_POINT: Final = 128
LARGEST: Final = 127


@dataclass(frozen=True, slots=True)
class QuantisedRows:
    """Rows [R, K] as (codes - ZERO_POINT) · scale: uint8 [R, K] and float32 [R, 1]."""

    codes: Tensor
    scale: Tensor
