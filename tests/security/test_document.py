"""The threat table names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_in_the_threat_table_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "`tests/" in line]
    assert len(rows) >= 12
    for row in rows:
        path = ""
        for file, name in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", row):
            path = file or path
            content = (ROOT / path).read_text("utf-8")
            assert not name or f"def {name}(" in content, f"{path}::{name}"
