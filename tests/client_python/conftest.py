"""polars frames are tested by test_wheel.py, in an environment that has polars."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("polars") else ["test_polars.py"]
