"""Draw the figures that the benchmarks wrote: `python -m benchmarks.charts RESULTS IMAGES`.

RESULTS is a folder of their JSON files (engine.json, saturation.json, growth.json, soak.json);
those that are not there are left out. Needs matplotlib.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Draw = Callable[[dict[str, Any], Axes], None]
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


def draw_soak_memory(figures: dict[str, Any], axes: Axes) -> None:
    """Resident memory of each process, by minute."""
    _draw_samples(figures, axes, "rss_mb")
    axes.set_ylabel("resident memory, MB")
    axes.legend(frameon=False, ncols=3)


def draw_soak_counts(figures: dict[str, Any], axes: Axes) -> None:
    """File descriptors and threads of the workers, by minute."""
    workers = [row for row in figures["samples"] if row["process"] != "master"]
    for key, colour, label in (
        ("descriptors", OURS, "file descriptors"),
        ("threads", LIMIT, "threads"),
    ):
        minutes = [row["second"] / 60 for row in workers]
        counts = [row[key] for row in workers]
        axes.plot(minutes, counts, ".", markersize=2, color=colour, label=label)
    axes.set_ylabel("of a worker")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, ncols=2)


def draw_soak_latency(figures: dict[str, Any], axes: Axes) -> None:
    """Latency of forecasts of one path, and of probes, by minute."""
    rows = [row for row in figures["minutes"] if row["p50"]]
    for key, colour, label in (
        ("p50", OURS, "p50"),
        ("p95", THEIRS, "p95"),
        ("probe_p99", LIMIT, "probes, p99"),
    ):
        axes.plot([row[key] / 1e3 for row in rows], color=colour, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("seconds")
    axes.set_xlabel("minutes after the warm-up")
    axes.legend(frameon=False, ncols=3)


def _draw_samples(figures: dict[str, Any], axes: Axes, key: str) -> None:
    """One line a process."""
    for process, colour in zip(
        sorted({row["process"] for row in figures["samples"]}), (THEIRS, OURS, LIMIT), strict=False
    ):
        rows = [row for row in figures["samples"] if row["process"] == process]
        minutes = [row["second"] / 60 for row in rows]
        axes.plot(minutes, [row[key] for row in rows], color=colour, label=process)
    axes.set_ylim(bottom=0)


SAMPLES_CASE = ("small", 400, 24)
CHARTS: dict[str, tuple[Draw, ...]] = {
    "engine": (draw_engine,),
    "saturation": (draw_saturation,),
    "growth": (draw_growth,),
    "soak": (draw_soak_memory, draw_soak_counts, draw_soak_latency),
}
"""Panels of each chart, from top to bottom."""


def main() -> None:
    """Draw every chart whose figures exist."""
    matplotlib.use("Agg")
    results, images = Path(sys.argv[1]), Path(sys.argv[2])
    images.mkdir(parents=True, exist_ok=True)
    for name, panels in CHARTS.items():
        path = results / f"{name}.json"
        if not path.is_file():
            print(f"{path} does not exist")
            continue
        height = 3.6 if len(panels) == 1 else 2.2 * len(panels)
        figure = Figure(figsize=(6.4, height), layout="constrained")
        figures = json.loads(path.read_text())["figures"]
        for draw, axes in zip(
            panels, figure.subplots(len(panels), squeeze=False).flat, strict=True
        ):
            axes.spines[["top", "right"]].set_visible(False)
            draw(figures, axes)
        figure.savefig(images / f"performance-{name}.png", dpi=120)
        print(f"wrote {images / f'performance-{name}.png'}")


if __name__ == "__main__":
    main()
