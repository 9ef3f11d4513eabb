"""Files and functions of the package stay within their size."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_sizes


def test_long_file_and_function_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_sizes, "ROOT", tmp_path)
    monkeypatch.setattr(check_sizes, "EXCEPTIONS", {"kronos_api/gone.py:gone": "no more"})
    (tmp_path / "kronos_api").mkdir()
    body = "    pass\n"
    text = f"def short():\n{body * 49}\n\nasync def long():\n{body * 50}" + "\n" * 150
    (tmp_path / "kronos_api" / "module.py").write_text(text)
    assert check_sizes.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        f"kronos_api/module.py: {len(text.splitlines())} lines, at most 250 allowed",
        "kronos_api/module.py:long: 51 lines, at most 50 allowed",
        "kronos_api/gone.py:gone: needless exception",
    ]


def test_package_is_within_its_sizes() -> None:
    assert check_sizes.main() == 0
