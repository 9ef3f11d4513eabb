"""Write the example files into this script's folder.

Run it with `python examples/make_examples.py`.

The candles are synthetic: a random walk with volatility clusters, and a volume that follows the
volatility, in 15-minute steps. The same seed gives the same bytes on every machine: prices and
volumes are rounded, so that differences between platforms in the last digit disappear.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
START = datetime(2026, 3, 2, tzinfo=UTC)
STEP = timedelta(minutes=15)

Candle = dict[str, float]


def make_candles(count: int, *, seed: int, price: float = 150.0) -> list[Candle]:
    """`count` candles from a GARCH-like walk that starts at `price`."""
    draw = random.Random(seed)
    usual = 0.003  # standard deviation of a quarter of an hour's return
    variance = usual**2
    candles = []
    for _ in range(count):
        shock = draw.gauss(0, 1) * math.sqrt(variance)
        variance = 0.05 * usual**2 + 0.15 * shock**2 + 0.80 * variance
        close = price * math.exp(shock)
        reach = math.sqrt(variance) * price
        high = max(price, close) + abs(draw.gauss(0, 0.4)) * reach
        low = min(price, close) - abs(draw.gauss(0, 0.4)) * reach
        volume = 900 * math.exp(draw.gauss(0, 0.35)) * (math.sqrt(variance) + abs(shock)) / usual
        row = {"open": price, "high": high, "low": low, "close": close, "volume": volume}
        candles.append({name: round(value, 2) for name, value in row.items()})
        price = close
    return candles


def make_timestamps(count: int) -> list[str]:
    """`count` RFC 3339 timestamps from `START` on."""
    return [f"{START + step * STEP:%Y-%m-%dT%H:%M:%SZ}" for step in range(count)]


def single() -> dict[str, object]:
    """400 candles as objects, 24 candles ahead, with a 10–90 % band."""
    return {
        "series_id": "example",
        "candles": make_candles(400, seed=1),
        "timestamps": make_timestamps(400),
        "horizon": 24,
        "freq": "15min",
        "overrides": {"sample_count": 10, "seed": 1},
        "quantile_levels": [0.1, 0.9],
    }


def batch() -> dict[str, object]:
    """Two short series as columns; they differ in history, horizon and sampling."""

    def item(series: str, count: int, horizon: int, seed: int) -> dict[str, object]:
        rows = make_candles(count, seed=seed, price=40.0 * seed)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return {
            "series_id": series,
            "candles": columns,
            "timestamps": make_timestamps(count),
            "horizon": horizon,
            "overrides": {"seed": seed},
        }

    first, second = item("first", 64, 8, seed=2), item("second", 48, 4, seed=3)
    second["overrides"] = {"temperature": 0.8, "sample_count": 4, "seed": 3}
    return {"items": [first, second]}


def table() -> str:
    """500 candles as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = make_candles(500, seed=1)
    writer.writerow(["timestamps", *rows[0]])
    for stamp, row in zip(make_timestamps(500), rows, strict=True):
        writer.writerow([stamp, *row.values()])
    return text.getvalue()


def render(value: object, indent: str = "") -> str:
    """JSON with each value that fits a line on one line, and lines filled with plain values."""
    line = json.dumps(value)
    inner = indent + "  "
    if len(indent) + len(line) <= 100 or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {render(part, inner)}" for key, part in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
    parts = [render(part, inner) for part in value]
    if not any(isinstance(part, dict | list) for part in value):
        parts = textwrap.wrap(", ".join(parts), 100 - len(inner))
        return "[\n" + "\n".join(inner + part for part in parts) + f"\n{indent}]"
    return "[\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}]"


def files() -> dict[str, str]:
    """File name to content."""
    return {
        "request-single.json": render(single()) + "\n",
        "request-batch.json": render(batch()) + "\n",
        "candles.csv": table(),
    }


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
        print(f"wrote {name}")
