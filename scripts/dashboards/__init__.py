"""Grafana's dashboards as code: `python -m scripts.dashboards` writes the files."""

from scripts.dashboards.files import DASHBOARDS, main
from scripts.dashboards.panel import Panel

__all__ = ["DASHBOARDS", "Panel", "main"]
