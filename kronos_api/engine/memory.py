"""Keys and values of one series: what decoding remembers of the positions already seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True, eq=False)
class Memory:
    """Preallocated keys and values of `paths` sample paths in every layer.

    own: [layers, 2, paths, capacity, C], of which `length` positions are filled.
    shared: [layers, 2, 1, positions, C], a prompt common to all paths, or None.
    """

    own: Tensor
    shared: Tensor | None = None
    length: int = 0
    layers: list[Tensor] = field(init=False)
    shared_layers: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        # Indexing a tensor costs microseconds; a decode step would do it twice a layer.
        self.layers = list(self.own.unbind(0))
        self.shared_layers = [] if self.shared is None else list(self.shared.unbind(0))

    @classmethod
    def allocate(cls, layers: int, paths: int, capacity: int, width: int, like: Tensor) -> Memory:
        """Reserve room for `capacity` positions of `paths` paths, on the device of `like`."""
        return cls(own=like.new_empty((layers, 2, paths, capacity, width)))

    @property
    def position(self) -> int:
        """Position that the next candle will take."""
        return self.length + (0 if self.shared is None else self.shared.shape[3])

    def fork(self, paths: int, capacity: int) -> Memory:
        """Share what is filled (one path) among `paths` paths with `capacity` positions each."""
        shared = self.own[:, :, :, : self.length]
        layers, two, _, _, width = self.own.shape
        own = self.own.new_empty((layers, two, paths, capacity, width))
        return Memory(own=own, shared=shared)

    def store(self, layer: int, pair: Tensor) -> None:
        """Write keys and values `pair` [paths, T, 2, C] of one layer after the filled positions."""
        until = self.length + pair.shape[1]
        self.layers[layer][:, :, self.length : until] = pair.movedim(2, 0)

    def known(self, layer: int, new: int, heads: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, `new` unfilled positions included: [paths, n, H, D]."""
        filled = self.layers[layer][:, :, : self.length + new].unflatten(3, (heads, -1))
        keys, values = filled.unbind(0)
        return keys, values

    def prompt(self, layer: int, heads: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the shared prompt in one layer: [1, n, H, D]."""
        keys, values = self.shared_layers[layer].unflatten(3, (heads, -1)).unbind(0)
        return keys, values

    def path(self, index: int) -> Memory:
        """A view of one path, for encoding its prompt by itself."""
        return Memory(own=self.own[:, :, index : index + 1])


def bytes_needed(layers: int, paths: int, capacity: int, width: int, dtype: torch.dtype) -> int:
    """Bytes that `Memory.allocate` would reserve."""
    return layers * 2 * paths * capacity * width * dtype.itemsize
