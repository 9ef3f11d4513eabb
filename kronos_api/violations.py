"""Violations: which field, which element, which rule; and the error that carries them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from kronos_api.errors import InvalidInput

T = TypeVar("T")

MAX_DETAILS: Final = 20
"""Details in one response; the message has the number of all violations."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One value that breaks a rule; the value itself is never repeated.

    counts: numbers that belong to the rule, such as `candles_count`, beside it in the details.
    """

    field: str
    constraint: str
    index: int | None = None
    item: int | None = None
    counts: Mapping[str, int] | None = None

    def detail(self) -> dict[str, object]:
        """As in an error response; `item` only in a batch."""
        detail: dict[str, object] = {} if self.item is None else {"item": self.item}
        detail |= {"field": self.field, "index": self.index, "constraint": self.constraint}
        return detail | dict(self.counts or {})

    def __str__(self) -> str:
        if self.item is None:
            place = self.field
        else:
            within = "" if self.field == "items" else f".{self.field}"
            place = f"items[{self.item}]{within}"
        index = "" if self.index is None else f"[{self.index}]"
        return f"{place}{index} must be {self.constraint}"


class InvalidFields(InvalidInput):
    """`InvalidInput` that keeps its violations, so that a batch can number them.

    total: the number of all violations where only some are listed.
    """

    def __init__(self, violations: Sequence[Violation], *, total: int | None = None) -> None:
        more = (total or len(violations)) - 1
        listed = each_field_first(violations, lambda one: (one.item, one.field))
        message = f"{violations[0]}" + (f" (and {more} more)" if more else "")
        super().__init__(
            message if message.endswith("?") else f"{message}.",
            details=[one.detail() for one in listed[:MAX_DETAILS]],
        )
        self.violations = list(violations)


def each_field_first(found: Sequence[T], field: Callable[[T], Hashable]) -> list[T]:
    """`found` in an order in which the first of each field precede all second ones, and so on.

    Otherwise one column of wrong values would hide the others.
    """
    counts: Counter[Hashable] = Counter()
    ranks = []
    for one in found:
        ranks.append(counts[field(one)])
        counts[field(one)] += 1
    return [found[at] for at in sorted(range(len(found)), key=ranks.__getitem__)]


def invalid_field(field: str, constraint: str, index: int | None = None) -> InvalidFields:
    """The error of a single value."""
    return InvalidFields([Violation(field, constraint, index)])
