"""The short form of the fault suite, and its table against the tests and the documentation."""

from __future__ import annotations

import re

import pytest

from tests.faults.rows import ROWS, Row
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_row_has_a_check_that_exists_and_a_line_in_the_documentation(row: Row) -> None:
    assert row.tests or row.measure or row.command
    for test in row.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text("utf-8")
        assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), test
    assert f"| {row.fault} | {row.bar} |" in PAGE
    assert f"`{row.name}`" in PAGE


def test_damaged_requests_get_documented_responses() -> None:
    (fuzz,) = (row for row in ROWS if row.name == "fuzz")
    assert [str(figure) for figure in fuzz.figures(long=False) if not figure.holds] == []
