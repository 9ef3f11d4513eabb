"""How a broken value rule is told: which field, which element, which constraint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kronos_api.errors import InvalidInput

MAX_DETAILS = 20
"""Details in one answer; the message tells how many violations there are in all."""


@dataclass(frozen=True, slots=True)
class Violation:
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


class InvalidFields(InvalidInput):
    """`InvalidInput` that still knows its violations, so that a batch can number them."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        more = len(violations) - 1
        message = f"{violations[0]}" + (f" (and {more} more)" if more else "")
        super().__init__(
            message if message.endswith("?") else f"{message}.",
            details=[violation.detail() for violation in violations[:MAX_DETAILS]],
        )
        self.violations = list(violations)


def invalid_field(field: str, constraint: str, index: int | None = None) -> InvalidFields:
    """The refusal of a single value."""
    return InvalidFields([Violation(field, constraint, index)])
