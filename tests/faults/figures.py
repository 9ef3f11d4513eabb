"""A measured figure and the bar that it must hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, and the most that it may be; None where it is only reported."""

    name: str
    value: float
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        return self.at_most is None or self.value <= self.at_most

    def __str__(self) -> str:
        shown = f"{self.name}: {self.value:.4g}"
        if self.at_most is None:
            return shown
        return f"{shown}, at most {self.at_most:g}: {'holds' if self.holds else 'MISSED'}"
