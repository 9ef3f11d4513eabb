"""The columns of a file by field."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kronos_api.errors import InvalidInput
from kronos_api.files.names import CLOCK, CLOCKS, DATES, NAMES, SYMBOLS, TIME, described, plain
from kronos_api.timeseries.features import FIELDS, PRICES

UNNAMED: Final = ("", "index", "unnamed 0")
"""Names of a column that pandas writes for an index."""


@dataclass(slots=True)
class ColumnMap:
    """The index of each column: by field, and of those that need a closer look."""

    at: dict[str, int] = field(default_factory=dict)
    symbol: int | None = None
    turnover: int | None = None
    """A column that may hold amounts or rates."""

    def summary(self, names: Sequence[str]) -> str:
        """The columns that are used, by their names in the file, and the others."""
        used = []
        for name, index in self.at.items():
            own = names[index] or "(no name)"
            if name != CLOCK:
                used.append(own if plain(own) == name else f"{own} as {name}")
        if CLOCK in self.at:
            used[0] = f"{names[self.at[TIME]]} and {names[self.at[CLOCK]]} as time"
        others = [
            name for index, name in enumerate(names) if name and index not in self.at.values()
        ]
        return f"columns {', '.join(used)}" + (f"; not used: {', '.join(others)}" if others else "")


def find_columns(
    names: Sequence[str], chosen: Mapping[str, str], is_time: Callable[[int], bool]
) -> ColumnMap:
    """The columns named `names`; `chosen` maps fields to the names that the user gave.

    is_time: whether the column of an index looks like timestamps, for one without a known name.
    Raises `InvalidInput` that lists the columns found, and names the option that helps.
    """
    known = [plain(name) for name in names]
    found = ColumnMap({name: _chosen(names, known, name, text) for name, text in chosen.items()})
    for name, aliases in NAMES.items():
        if name in found.at:
            continue
        for alias in aliases:
            places = [
                at for at, have in enumerate(known) if have == alias and at not in found.at.values()
            ]
            if len(places) > 1 and name != TIME:
                raise InvalidInput(
                    f"has {len(places)} columns {alias}; found {described(names)}. Name one, such "
                    f'as --columns "{name}={names[places[0]]}", after renaming the other'
                )
            if places:
                found.at[name] = places[0]
                break
    _find_clock(known, found)
    if missing := [name for name in PRICES if name not in found.at]:
        raise InvalidInput(
            f"has no column {', '.join(missing)}; found {described(names)}. Name yours, such as "
            f"--columns {missing[0]}=NAME, or the separator, such as --sep ';'"
        )
    _find_time(names, known, found, is_time)
    if "amount" in found.at and known[found.at["amount"]] == "turnover" and "amount" not in chosen:
        found.turnover = found.at.pop("amount")
    found.symbol = next((known.index(name) for name in SYMBOLS if name in known), None)
    found.at = {name: found.at[name] for name in (TIME, CLOCK, *FIELDS) if name in found.at}
    return found


def _chosen(names: Sequence[str], known: Sequence[str], name: str, column: str) -> int:
    for listed, wanted in ((names, column), (known, plain(column))):
        if wanted in listed:
            return list(listed).index(wanted)
    near = difflib.get_close_matches(column, names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else f"; found {described(names)}"
    raise InvalidInput(f'has no column "{column}" for {name}{hint}')


def _find_clock(known: Sequence[str], found: ColumnMap) -> None:
    """A date and a time of day in two columns."""
    at = found.at.get(TIME)
    if at is None or known[at] not in DATES:
        return
    for name in CLOCKS:
        if name in known and known.index(name) != at:
            found.at[CLOCK] = known.index(name)
            return


def _find_time(
    names: Sequence[str], known: Sequence[str], found: ColumnMap, is_time: Callable[[int], bool]
) -> None:
    if TIME in found.at:
        return
    for index, name in enumerate(known):
        free = index not in found.at.values() and name not in SYMBOLS
        if free and (name in UNNAMED or is_time(index)):
            found.at[TIME] = index
            return
    raise InvalidInput(
        f"has no time column; found {described(names)}. Known names are timestamps, datetime, date "
        "and others; name yours, such as --columns time=NAME"
    )


def parse_choice(text: str) -> dict[str, str]:
    """`close=Last,time=When` as a mapping; raises `InvalidInput`."""
    chosen = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = part.partition("=")
        name = name.strip().lower()
        name = TIME if name in NAMES[TIME] else name
        if not equals or not column.strip() or name not in (TIME, CLOCK, *FIELDS):
            raise InvalidInput(
                f"--columns must be such as close=Last,time=When with the names time, "
                f"{', '.join(FIELDS)}; found {part!a}"
            )
        chosen[name] = column.strip()
    return chosen
