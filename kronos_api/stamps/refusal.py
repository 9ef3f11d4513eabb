"""How a broken value rule is told: which field, which element, which constraint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kronos_api.errors import InvalidInput

MAX_DETAILS = 20
"""Details in one answer; the message tells how many breaches there are in all."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One value that breaks a rule; the value itself is never repeated."""

    field: str
    constraint: str
    index: int | None = None
    item: int | None = None

    def detail(self) -> dict[str, object]:
        """As it stands in an answer; `item` only where a batch has several."""
        item = {} if self.item is None else {"item": self.item}
        return item | {"field": self.field, "index": self.index, "constraint": self.constraint}

    def __str__(self) -> str:
        if self.item is None:
            place = self.field
        else:
            within = "" if self.field == "items" else f".{self.field}"
            place = f"items[{self.item}]{within}"
        index = "" if self.index is None else f"[{self.index}]"
        return f"{place}{index} must be {self.constraint}"


class Refusal(InvalidInput):
    """`InvalidInput` that still knows its breaches, so that a batch can number them."""

    def __init__(self, breaches: Sequence[Breach]) -> None:
        more = len(breaches) - 1
        message = f"{breaches[0]}" + (f" (and {more} more)" if more else "")
        super().__init__(
            message if message.endswith("?") else f"{message}.",
            details=[breach.detail() for breach in breaches[:MAX_DETAILS]],
        )
        self.breaches = list(breaches)


def refusal(field: str, constraint: str, index: int | None = None) -> Refusal:
    """The refusal of a single value."""
    return Refusal([Breach(field, constraint, index)])
