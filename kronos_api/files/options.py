"""What a user may say about a file where it is not found out rightly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from kronos_api.errors import InvalidInput
from kronos_api.files.columns import parse_choice
from kronos_api.files.numbers import Decimal

_SEPARATORS: Final = {"\\t": "\t", "tab": "\t"}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Properties of the file that the user gave; None: found from the file."""

    separator: str | None = None
    decimal: Decimal | None = None
    time_format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def parse_options(
    columns: str = "",
    separator: str | None = None,
    decimal: str | None = None,
    time_format: str | None = None,
) -> ReadOptions:
    """Options as a user writes them; raises `InvalidInput` that names the option."""
    if separator is not None:
        separator = _SEPARATORS.get(separator, separator)
        if len(separator) != 1:
            raise InvalidInput(f"--sep must be one character or tab; found {separator!a}")
    if decimal not in (None, ".", ","):
        raise InvalidInput(f"--decimal must be . or , ; found {decimal!a}")
    return ReadOptions(
        separator, cast("Decimal | None", decimal), time_format, parse_choice(columns)
    )
