"""The library of a frame, found without importing any that the caller does not use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from kronos_api_client.series import Series


class FrameBackend(Protocol):
    """What `pandas_frames` and `polars_frames` have in common."""

    def read_one(self, frame: Any, series_id: object) -> Series:
        """The series that a frame holds."""

    def read_many(self, frame: Any, id_column: str) -> list[Series]:
        """The series of a long frame, in the order of their first rows."""

    def join(self, frames: Mapping[Any, Any], id_column: str) -> Any:
        """One long frame of the forecasts by series."""

    def set_metadata(self, frame: Any, metadata: dict[str, Any]) -> None:
        """Attach `metadata` to a forecast, where the library can."""

    def texts_of(self, times: Any) -> list[str]:
        """Future timestamps as RFC 3339 texts."""


def backend_of(frame: object) -> FrameBackend:
    """The library of `frame`; raises `TypeError` unless it is a DataFrame of pandas or polars."""
    for kind in type(frame).__mro__:
        name = kind.__module__.partition(".")[0]
        if kind.__name__ == "DataFrame" and name in ("pandas", "polars"):
            return cast("FrameBackend", importlib.import_module(f"kronos_api_client.{name}_frames"))
    raise TypeError(f"expected a DataFrame of pandas or polars, found {type(frame).__name__}")
