"""The chart of a forecast."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_api_client import plot
from tests.client_python.service import Service, history

pytest.importorskip("matplotlib").use("Agg")


def drawn(axes: Any) -> dict[str, int]:
    """Lines and bands of a chart by label, with their number of points."""
    lines = {line.get_label(): len(line.get_xdata()) for line in axes.lines}
    bands = {
        band.get_label(): (len(band.get_paths()[0].vertices) - 3) // 2 for band in axes.collections
    }
    return lines | bands


@pytest.fixture(autouse=True)
def no_open_figures() -> Any:
    from matplotlib import pyplot

    yield
    pyplot.close("all")


def forecast(frame: Any, **options: Any) -> Any:
    levels = [0.9, 0.1, 0.5, 0.25, 0.75]
    chosen: dict[str, Any] = {"horizon": 5, "quantile_levels": levels} | options
    return Service().call("sync", "forecast", frame, **chosen)


def test_forecast_has_history_bands_and_median() -> None:
    frame = history(8)
    axes = forecast(frame).plot(frame)
    expected = {"history": 8, "10–90 %": 5, "25–75 %": 5, "50 %": 5, "forecast": 5}
    assert drawn(axes) == expected
    assert axes.get_ylabel() == "close"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert set(legend) == set(expected)


def test_other_field_and_axes() -> None:
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    frame = history(8).rename(columns=str.title)
    assert forecast(frame, quantile_levels=None).plot(frame, field="volume", ax=axes) is axes
    assert drawn(axes) == {"history": 8, "forecast": 5}


@pytest.mark.parametrize("text", [True, False])
def test_frames_with_a_column_of_times(text: bool) -> None:
    frame = history(8, tz="UTC").rename_axis("timestamps").reset_index()
    if text:
        frame["timestamps"] = [time.isoformat() for time in frame["timestamps"]]
    axes = plot(forecast(frame).frame, frame)
    first: Any = next(iter(axes.lines[0].get_xdata()))  # type: ignore[arg-type]
    assert pd.Timestamp(first).isoformat() == "2025-03-03T09:00:00+00:00"


def test_frame_without_times_or_field_is_refused() -> None:
    bare = pd.DataFrame({"close": np.ones(3)})
    with pytest.raises(ValueError, match="no timestamps in the frame"):
        plot(bare)
    with pytest.raises(ValueError, match="no column 'vwap' in the frame; found open, high"):
        plot(forecast(history()).frame, field="vwap")


def test_error_names_the_extra_where_matplotlib_is_missing(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'kronos-api-client\[plot\]'"):
        plot(history())
