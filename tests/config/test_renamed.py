"""Renamed settings: their old names and values still work, with one warning each."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kronos_api.config import Settings, load_settings, unknown_variables, variable
from kronos_api.config.renamed import REMOVAL, RENAMED, RENAMED_VALUES, translate
from kronos_api.errors import StartupError


def warnings() -> tuple[Settings, list[str]]:
    """The settings of the environment, and the warnings that reading them logs."""
    with capture_logs() as lines:
        settings = load_settings()
    return settings, [line["message"] for line in lines if line["event"] == "renamed_setting"]


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    known = {variable(name) for name in Settings.model_fields}
    assert set(RENAMED.values()) <= known
    assert not set(RENAMED) & known
    assert unknown_variables(RENAMED) == []
    assert {name for name, _ in RENAMED_VALUES} <= known


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_name_in_the_environment_sets_the_new_one(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    monkeypatch.setenv(old, "200")
    settings, lines = warnings()
    assert settings.model_dump()[new.removeprefix("KRONOS_").lower()] == 200
    assert lines == [f"{old} was renamed to {new} and is accepted until {REMOVAL}: rename it"]


def test_old_name_in_the_file_sets_the_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    monkeypatch.setattr("kronos_api.config.env_file.ENV_FILE", file)
    file.write_text("KRONOS_MAX_WORK=200\nKRONOS_RATE_LIMIT_BATCH=work\n")
    settings, lines = warnings()
    assert (settings.max_decode_steps, settings.rate_limit_batch) == (200, "decode_steps")
    assert len(lines) == 2
    monkeypatch.setenv("KRONOS_MAX_WORK", "300")  # the environment goes first
    assert warnings()[0].max_decode_steps == 300


def test_new_name_wins_over_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_MAX_WORK", "200")
    monkeypatch.setenv("KRONOS_MAX_DECODE_STEPS", "300")
    settings, lines = warnings()
    assert settings.max_decode_steps == 300
    assert lines == [
        "KRONOS_MAX_WORK is ignored, because its new name KRONOS_MAX_DECODE_STEPS is set too: "
        "remove KRONOS_MAX_WORK"
    ]


def test_empty_variables_count_as_unset() -> None:
    found = translate({"KRONOS_MAX_WORK": "200", "KRONOS_MAX_DECODE_STEPS": ""})
    assert found.values == {"KRONOS_MAX_DECODE_STEPS": "200"}
    assert translate({"KRONOS_MAX_WORK": ""}).warnings == []


def test_old_value_is_read_as_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_RATE_LIMIT_BATCH", "work")
    settings, lines = warnings()
    assert settings.rate_limit_batch == "decode_steps"
    assert lines == [
        "KRONOS_RATE_LIMIT_BATCH=work was renamed to KRONOS_RATE_LIMIT_BATCH=decode_steps and is "
        f"accepted until {REMOVAL}: rename it"
    ]


def test_bad_value_is_reported_with_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_MAX_WORK", "many")
    with pytest.raises(
        StartupError, match=r"^KRONOS_MAX_DECODE_STEPS \(set as KRONOS_MAX_WORK\): "
    ):
        load_settings()
