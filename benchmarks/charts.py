"""Draw the figures that the benchmarks wrote: `python -m benchmarks.charts RESULTS IMAGES`.

RESULTS is a folder of their JSON files (engine.json, saturation.json, growth.json); those that are
not there are left out. Needs matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, THEIRS, LIMIT = "#1f6feb", "#9aa4b2", "#2da44e"


def draw_engine(figures: dict[str, Any], axes: Axes) -> None:
    """Seconds a forecast: published, ours, and the floor, on a logarithmic scale."""
    rows = figures["rows"]
    names = [
        "{history} → {horizon}\n{sample_count} sample path(s)".format(**row["case"]) for row in rows
    ]
    for shift, key, colour, label in (
        (-0.27, "theirs", THEIRS, "published implementation"),
        (0.0, "ours", OURS, "Kronos API"),
        (0.27, "floor", LIMIT, "floor"),
    ):
        places = [index + shift for index in range(len(rows))]
        bars = axes.bar(places, [row[key] for row in rows], 0.26, color=colour, label=label)
        axes.bar_label(bars, fmt="%.2g", fontsize=8)
    axes.set_xticks(range(len(rows)), names)
    axes.set_yscale("log")
    axes.set_ylabel("seconds a forecast")
    axes.legend(frameon=False)


def draw_saturation(figures: dict[str, Any], axes: Axes) -> None:
    """Requests a second against the number of clients."""
    for together, colour, label in ((True, OURS, "together"), (False, THEIRS, "one at a time")):
        rows = [row for row in figures["closed_loop"] if row["together"] is together]
        clients, rates = [row["clients"] for row in rows], [row["rate"] for row in rows]
        axes.plot(clients, rates, marker="o", color=colour, label=f"decoded {label}")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("clients")
    axes.set_ylabel("requests/s")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def draw_growth(figures: dict[str, Any], axes: Axes) -> None:
    """Seconds of a forecast of 24 candles from 400 against the number of sample paths."""
    rows = [r for r in figures["rows"] if (r["shape"], r["history"], r["horizon"]) == SAMPLES_CASE]
    rows.sort(key=lambda row: row["sample_count"])
    counts, seconds = [row["sample_count"] for row in rows], [row["seconds"] for row in rows]
    axes.plot(counts, seconds, marker="o", color=OURS)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("sample paths")
    axes.set_ylabel("seconds a forecast")
    axes.set_ylim(bottom=0)


SAMPLES_CASE = ("small", 400, 24)
CHARTS = {"engine": draw_engine, "saturation": draw_saturation, "growth": draw_growth}


def main() -> None:
    """Draw every chart whose figures exist."""
    matplotlib.use("Agg")
    results, images = Path(sys.argv[1]), Path(sys.argv[2])
    images.mkdir(parents=True, exist_ok=True)
    for name, draw in CHARTS.items():
        path = results / f"{name}.json"
        if not path.is_file():
            print(f"{path} does not exist")
            continue
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(json.loads(path.read_text())["figures"], axes)
        figure.savefig(images / f"performance-{name}.png", dpi=120)
        print(f"wrote {images / f'performance-{name}.png'}")


if __name__ == "__main__":
    main()
