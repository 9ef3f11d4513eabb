"""A chart of a forecast; needs matplotlib (the extra `plot`)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from kronos_api_client.series import Frame, no_time_axis, time_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARK: Final = "-q-"
"""Between field and level in the name of a quantile column."""
ALPHA: Final = 0.35
"""Opacity of all bands of the fan together, at its middle."""


def plot(
    forecast: Frame, history: Frame | None = None, *, field: str = "close", ax: Axes | None = None
) -> Axes:
    """Draw `field` of the frame `forecast` after its `history`, with the quantiles as a fan.

    Each pair of quantiles, the outermost first, is a band; a median is a dashed line. Draws into
    `ax`, else into a new figure. Returns the axes. Raises `ImportError` without matplotlib.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install 'kronos-api-client[plot]'") from None
    if ax is None:
        _, ax = pyplot.subplots(figsize=(10, 4), layout="constrained")
    times = _times(forecast)
    if history is not None:
        ax.plot(_times(history), _values(history, field), color="C0", label="history")
    levels = _levels(forecast, field)
    pairs = list(zip(levels, reversed(levels), strict=True))[: len(levels) // 2]
    for (low, lower), (high, upper) in pairs:
        ax.fill_between(
            times,
            _values(forecast, lower),
            _values(forecast, upper),
            color="C1",
            alpha=ALPHA / len(pairs),
            linewidth=0,
            label=f"{100 * low:g}–{100 * high:g} %",
        )
    if len(levels) % 2:
        level, name = levels[len(levels) // 2]
        ax.plot(times, _values(forecast, name), "--", color="C1", label=f"{100 * level:g} %")
    ax.plot(times, _values(forecast, field), color="C1", label="forecast")
    ax.set_ylabel(field)
    ax.legend()
    return ax


def _levels(frame: Frame, field: str) -> list[tuple[float, str]]:
    """Level and column of each quantile of `field`, ascending."""
    prefix = f"{field}{MARK}"
    names = [name for name in map(str, frame.columns) if name.startswith(prefix)]
    return sorted((float(name.removeprefix(prefix)), name) for name in names)


def _values(frame: Any, name: str) -> list[float]:
    """The column `name`, whatever its case."""
    by_name = {str(column).lower(): column for column in frame.columns}
    if name.lower() not in by_name:
        raise ValueError(f"no column {name!r} in the frame; found {', '.join(by_name)}")
    values: list[float] = frame[by_name[name.lower()]].to_list()
    return values


def _times(frame: Any) -> list[Any]:
    name = time_column(frame.columns)
    index = getattr(frame, "index", None)
    # A pandas index of times goes before a column, as it does for forecasts.
    if hasattr(index, "tz") or name is None:
        if not hasattr(index, "tz"):
            raise no_time_axis(frame.columns)
        times: list[Any] = list(index.to_pydatetime())  # type: ignore[union-attr]
    else:
        times = frame[name].to_list()
    return [datetime.fromisoformat(time) if isinstance(time, str) else time for time in times]
