"""Draw panels of the dashboards with the data of a real Prometheus, for docs/monitoring.md.

    python -m tests.monitoring.picture docs/images/dashboards.png

Grafana draws the same queries; here it is matplotlib. The service is `tests.paced_service`,
so its times are those of the script, not of a model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.dashboards import DASHBOARDS, Panel
from tests.monitoring.world import World, listed, running_world
from tests.processes import OPENER, until

SECONDS: Final = 75
SHOWN: Final = (
    *("Requests by route", "Time of a forecast", "Errors by code"),
    *("Saturation", "Time by phase", "Candles decoded"),
    *("Requests by caller", "Refused by the rate limit", "Memory of the workers"),
    *("Workers that limit locally", "Requests of the gateway", "Burn rates"),
)
VARIABLES: Final = {"$instance": ".*", "$container": ".*", "$__rate_interval": "6s"}


def load(world: World) -> None:
    """Callers, one above its limit, a burst that is too slow, and an outage of Redis."""
    began = time.monotonic()
    while (now := time.monotonic() - began) < SECONDS:
        slow = 9.0 if 25 < now < 27 else 0.3
        world.ask_all(listed(6 + int(now) % 9, int(now) % 200), seconds=slow)
        world.ask_all(["10.1.250.1"] * (30 if 40 < now < 55 else 1))
        if 50 < now < 60:
            world.redis.kill()
        elif not world.stack.query("redis_up == 1"):
            world.redis.start()
        world.ask("203.0.113.9")


def series(world: World, query: str, began: float) -> list[dict[str, Any]]:
    """The result of a query over the time since `began`."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    asked = {"query": query, "start": began, "end": time.time(), "step": "1s"}
    url = f"http://127.0.0.1:{world.stack.port['prometheus']}/api/v1/query_range?"
    with OPENER.open(url + urlencode(asked), timeout=30) as answer:
        return list(json.load(answer)["data"]["result"])


def draw(axes: Axes, panel: Panel, world: World, began: float) -> None:
    """One panel."""
    for legend, query in panel.queries.items():
        for one in series(world, query, began):
            label = legend
            for name, value in one["metric"].items():
                label = label.replace(f"{{{{{name}}}}}", value)
            points = [(float(at) - began, float(value)) for at, value in one["values"]]
            if any(value > 0 for _, value in points):
                axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
    axes.set_title(f"{panel.title} ({panel.unit})", fontsize=9, loc="left")
    axes.set_xlim(0, time.time() - began)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=6, loc="upper left")


def main(target: Path) -> None:
    """Run, load and draw."""
    mpl.use("Agg")
    with tempfile.TemporaryDirectory() as folder, running_world(Path(folder)) as world:
        until(lambda: len(world.stack.query("kronos_build_info")) == 2)
        began = time.time()
        load(world)
        figure = Figure(figsize=(14, 11), layout="constrained")
        panels = {panel.title: panel for board in DASHBOARDS for panel in board.panels}
        for axes, title in zip(figure.subplots(4, 3).flat, SHOWN, strict=True):
            draw(axes, panels[title], world, began)
        figure.savefig(target, dpi=75)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
