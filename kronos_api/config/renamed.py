"""Settings that were renamed: their old names and values are accepted throughout version 0.2.

The compose files pass the old names on, and deploy.sh knows them (`deploy/lib/checks.sh`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

REMOVAL: Final = "version 0.3"

RENAMED: Final = {
    "KRONOS_ANSWER_TIMEOUT": "KRONOS_SEND_TIMEOUT",
    "KRONOS_MAX_WORK": "KRONOS_MAX_DECODE_STEPS",
}
"""New name of each old one."""

RENAMED_VALUES: Final = {
    ("KRONOS_RATE_LIMIT_BATCH", "work"): "decode_steps",
}
"""New value of each old one, with the variable that holds it."""


@dataclass(slots=True)
class Renamed:
    """What `translate` found."""

    values: dict[str, str] = field(default_factory=dict)
    """Values that were set by an old name, or as an old value, by new name."""
    old_names: dict[str, str] = field(default_factory=dict)
    """Old name of each new one in `values` that was set by an old name."""
    warnings: list[str] = field(default_factory=list)
    """One line for each old name or value."""


def translate(variables: Mapping[str, str]) -> Renamed:
    """Old names and values in `variables`, whose names are in upper case, in terms of the new.

    If a setting is set by both names, the new one wins.
    """
    found = Renamed()
    for old, new in RENAMED.items():
        if not variables.get(old):
            continue
        if variables.get(new):
            line = f"{old} is ignored, because its new name {new} is set too: remove {old}"
        else:
            line = f"{old} was renamed to {new} and is accepted until {REMOVAL}: rename it"
            found.values[new] = variables[old]
            found.old_names[new] = old
        found.warnings.append(line)
    for (name, old), new in RENAMED_VALUES.items():
        if variables.get(name) == old:
            found.values[name] = new
            found.warnings.append(
                f"{name}={old} was renamed to {name}={new} and is accepted until {REMOVAL}: "
                "rename it"
            )
    return found
