"""docs/troubleshooting.md has a remedy for every error code and warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronos_api.errors import error_codes
from kronos_api.schemas.warnings import WarningCode

PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text("utf-8")
LOUD = {WarningCode.DEMO_MODEL, WarningCode.CONTEXT_TRIMMED, WarningCode.FEW_PATHS}


@pytest.mark.parametrize("code", error_codes())
def test_every_error_code_has_a_row(code: str) -> None:
    assert f"`{code}`" in PAGE


@pytest.mark.parametrize("code", sorted(LOUD))
def test_warnings_about_the_answer_have_a_row(code: str) -> None:
    assert f"`{code}`" in PAGE
