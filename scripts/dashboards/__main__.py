"""Write Grafana's dashboards to monitoring/grafana/dashboards, from the panels listed here.

    .venv/bin/python -m scripts.dashboards [--check]

`--check` writes nothing and exits with 1 if a file differs from what would be written.
"""

from __future__ import annotations

import sys

from scripts.dashboards import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
