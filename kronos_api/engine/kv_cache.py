"""Keys and values of one series: what decoding remembers of the positions already seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass(slots=True, eq=False)
class Memory:
    """Preallocated keys and values of `paths` sample paths in every layer.

    own: [layers, paths, capacity, 2, C], of which `length` positions are filled.
    heads: attention heads of each layer.
    shared: [layers, 1, positions, 2, C], a prompt common to all paths, or None.
    """

    own: Tensor
    heads: Sequence[int]
    shared: Tensor | None = None
    length: int = 0
    _rows: Sequence[Tensor] = field(init=False)
    _known: list[Pair] = field(init=False)
    _prompt: list[Pair] = field(init=False)

    def __post_init__(self) -> None:
        # A view costs microseconds, and a decode step would make several of them in every layer.
        self._rows = self.own.unbind(0)
        self._known = _by_head(self._rows, self.heads)
        self._prompt = [] if self.shared is None else _by_head(self.shared.unbind(0), self.heads)

    @classmethod
    def allocate(
        cls, heads: Sequence[int], paths: int, capacity: int, width: int, like: Tensor
    ) -> Memory:
        """Reserve room for `capacity` positions of `paths` paths, on the device of `like`."""
        return cls(like.new_empty((len(heads), paths, capacity, 2, width)), heads)

    @property
    def paths(self) -> int:
        """Sample paths that are remembered."""
        return self.own.shape[1]

    @property
    def position(self) -> int:
        """Position that the next candle will take."""
        return self.length + (0 if self.shared is None else self.shared.shape[2])

    def store(self, layer: int, pair: Tensor) -> None:
        """Write keys and values `pair` [paths, T, 2, C] of one layer after the filled positions."""
        self._rows[layer].narrow(1, self.length, pair.shape[1]).copy_(pair)

    def known(self, layer: int, new: int) -> Pair:
        """Keys and values of one layer, `new` unfilled positions included: [paths, H, n, D]."""
        keys, values = self._known[layer]
        count = self.length + new
        return keys.narrow(2, 0, count), values.narrow(2, 0, count)

    def prompt(self, layer: int) -> Pair:
        """Keys and values of the shared prompt in one layer: [1, H, n, D]."""
        return self._prompt[layer]

    def path(self, index: int) -> Memory:
        """A view of one path, for encoding its prompt by itself."""
        return Memory(self.own[:, index : index + 1], self.heads)

    def fork(self, paths: int, capacity: int) -> Memory:
        """Share what is filled (one path) among `paths` paths with `capacity` positions each."""
        layers, _, _, two, width = self.own.shape
        own = self.own.new_empty((layers, paths, capacity, two, width))
        return Memory(own, self.heads, shared=self.own[:, :, : self.length])


def bytes_needed(layers: int, positions: int, width: int, dtype: torch.dtype) -> int:
    """Bytes that `Memory.allocate` would reserve for so many positions, over all paths."""
    return layers * 2 * positions * width * dtype.itemsize


def _by_head(rows: Sequence[Tensor], heads: Sequence[int]) -> list[Pair]:
    """Keys and values of each layer as attention reads them: [paths, H, positions, D]."""
    pairs = []
    for layer, count in zip(rows, heads, strict=True):
        keys, values = layer.unflatten(3, (count, -1)).transpose(1, 3).unbind(2)
        pairs.append((keys, values))
    return pairs
