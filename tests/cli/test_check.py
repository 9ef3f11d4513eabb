"""`kronos-api check` finds what would stop a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_what_is_good_is_told(command: Command) -> None:
    result = command("check")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith(
        ": the settings are good, and so are kronos-demo and kronos-demo"
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KRONOS_REQUEST_TIMEOUT", "1", "KRONOS_INFERENCE_TIMEOUT must be below"),
        ("KRONOS_MODEL_PATH", "/nowhere", "/nowhere"),
        ("KRONOS_RATE_LIMITS", "no-such-route=1/minute", "no-such-route"),
    ],
)
def test_what_is_not_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    result = command("check")
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_damaged_checkpoint_is_found(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for part in ("model", "tokenizer"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
    monkeypatch.setenv("KRONOS_MODEL_PATH", str(tmp_path))
    result = command("check")
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
