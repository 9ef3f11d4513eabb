"""What the master and one of its workers tell each other, in memory that both map."""

from __future__ import annotations

import mmap
from enum import IntEnum


class Condition(IntEnum):
    """How a worker fares; the worker says it."""

    STARTING = 0
    READY = 1
    """It has loaded the model and serves."""
    WORN = 2
    """It serves and asks for a replacement: after enough requests, or told so by a signal."""
    STALLED = 3
    """Its engine makes no progress: it serves no more and asks for a replacement."""
    ENDED = 4
    """It has stopped in order; a worker that ends without saying so has died."""


class Order(IntEnum):
    """What a worker is to do; the master says it."""

    NONE = 0
    MAKE_WAY = 1
    """Drain, for another has taken its place; the service as a whole goes on."""
    STOP = 2
    """Drain, for the service stops."""


class Page:
    """One byte for each direction. A byte is written whole, so there is nothing to lock."""

    def __init__(self) -> None:
        self._bytes = mmap.mmap(-1, 2)

    @property
    def condition(self) -> Condition:
        """How the worker fares."""
        return Condition(self._bytes[0])

    @condition.setter
    def condition(self, condition: Condition) -> None:
        self._bytes[0] = condition

    @property
    def order(self) -> Order:
        """What the worker is to do."""
        return Order(self._bytes[1])

    @order.setter
    def order(self, order: Order) -> None:
        self._bytes[1] = order
