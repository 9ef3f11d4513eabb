"""The dashboards, and their files as Grafana reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.dashboards.callers import CALLERS
from scripts.dashboards.gateway import GATEWAY
from scripts.dashboards.model import MODEL
from scripts.dashboards.overview import OVERVIEW
from scripts.dashboards.panel import Panel
from scripts.dashboards.resources import RESOURCES

ROOT = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "monitoring" / "grafana" / "dashboards"
SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}


@dataclass(frozen=True)
class Dashboard:
    """A dashboard, `kronos-NAME`."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[str, ...] = ("instance",)


DASHBOARDS: Final = (
    Dashboard("overview", "Kronos: overview", OVERVIEW),
    Dashboard("model", "Kronos: model", MODEL),
    Dashboard("callers", "Kronos: callers", CALLERS, ("instance", "container")),
    Dashboard("resources", "Kronos: resources", RESOURCES),
    Dashboard("gateway", "Kronos: gateway and Redis", GATEWAY, ()),
)
VARIABLES: Final = {
    "instance": "label_values(kronos_build_info, instance)",
    "container": "label_values(kronos_caller_requests_total, container)",
}
ANNOTATIONS: Final = (
    # A build that was not there a minute ago.
    (
        "Deployments",
        "blue",
        "count by (version, commit) (kronos_build_info)"
        " unless count by (version, commit) (kronos_build_info offset 1m)",
        "{{version}} {{commit}}",
    ),
    ("Workers that died", "red", "increase(kronos_worker_deaths_total[1m]) > 0", "{{instance}}"),
)


def as_json(dashboard: Dashboard) -> str:
    """The file of a dashboard."""
    panels, x, y, height = [], 0, 0, 8
    for number, panel in enumerate(dashboard.panels, 1):
        if x + panel.width > 24:
            x, y = 0, y + height
        panels.append(_panel(number, panel, {"h": height, "w": panel.width, "x": x, "y": y}))
        x += panel.width
    model = {
        "uid": f"kronos-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["kronos"],
        "timezone": "browser",
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "editable": False,
        "links": [{"type": "dashboards", "tags": ["kronos"], "title": "Kronos", "keepTime": True}],
        "templating": {"list": [_variable(name) for name in dashboard.variables]},
        "annotations": {"list": [_annotation(*one) for one in ANNOTATIONS]},
        "panels": panels,
    }
    return json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.type == "timeseries" and panel.limit is not None:
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    instant = panel.type in ("stat", "table")
    return {
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "type": panel.type,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "format": "table" if panel.type == "table" else "time_series",
            }
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def _variable(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": VARIABLES[name], "refId": "A"},
        "refresh": 2,  # when the time range changes: replicas come and go
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _annotation(name: str, color: str, expression: str, title: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": color,
        "expr": expression,
        "step": "60s",
        "titleFormat": title,
    }


def main(arguments: Sequence[str]) -> int:
    """Write or compare all files; 1 if one differs."""
    files = {FOLDER / f"kronos-{one.name}.json": as_json(one) for one in DASHBOARDS}
    if "--check" not in arguments:
        for path, text in files.items():
            path.write_text(text, "utf-8")
        return 0
    stale = [
        path.relative_to(ROOT)
        for path, text in files.items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]
    stale += [path.relative_to(ROOT) for path in FOLDER.glob("*.json") if path not in files]
    for name in stale:
        print(f"{name}: run .venv/bin/python -m scripts.dashboards")
    return bool(stale)
