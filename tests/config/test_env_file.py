"""`.env` in the working directory: read as Docker Compose reads it, after the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kronos_api.config import load_settings
from kronos_api.config.env_file import read_env_file
from kronos_api.errors import StartupError


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a `.env` in the working directory, which is not there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kronos_api.config.env_file.ENV_FILE", Path(".env"))
    return tmp_path / ".env"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain words", "plain words"),
        ("NAME=value   # a comment", "value"),
        ("NAME=a#b", "a#b"),
        ('NAME="double # quoted"  # a comment', "double # quoted"),
        ('NAME="a\\nb \\"c\\""', 'a\nb "c"'),
        ("NAME='single # $HOME ${HOME}'", "single # $HOME ${HOME}"),
        ("export NAME=value", "value"),
        ("  NAME = value  ", "value"),
        ("NAME=", ""),
        ("OTHER=1\r\nNAME=value\r\n", "value"),
        ("\ufeffNAME=value", "value"),
        ("NAME=1\nNAME=2", "2"),
        ("OTHER=a\nNAME=${OTHER}-$OTHER", "a-a"),
        ('NAME="${FROM_ENVIRONMENT}"', "outside"),
        ("FROM_ENVIRONMENT=inside\nNAME=$FROM_ENVIRONMENT", "outside"),
        ("NAME=${UNSET:-default}${UNSET-default}", "defaultdefault"),
        ("OTHER=\nNAME=${OTHER:-default}${OTHER-default}", "default"),
        ("NAME=a${UNSET}b", "ab"),
        ("NAME=pa$$word", "pa$word"),
    ],
)
def test_values_are_read_as_compose_reads_them(env_file: Path, line: str, value: str) -> None:
    env_file.write_text(line, "utf-8", newline="")
    found = read_env_file({"FROM_ENVIRONMENT": "outside"})
    assert found is not None
    assert (found.values["NAME"], found.ignored_lines) == (value, [])


def test_the_environment_goes_first_and_the_file_is_named(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(
        "KRONOS_PORT=9\nKRONOS_MAX_QUEUE=70\nKRONOS_APP_NAME=File\nGUNICORN_WORKERS=3\n"
        "KRONOS_LOG_LEVEL=\nKRONOS_IMAGE=mine:current\nGRAFANA_PASSWORD=secret\nHF_TOKEN=x\n",
        "utf-8",
    )
    monkeypatch.setenv("KRONOS_PORT", "10")
    monkeypatch.setenv("KRONOS_APP_NAME", "")  # as compose has it, set to nothing
    with capture_logs() as lines:
        settings = load_settings()
    assert (settings.port, settings.max_queue, settings.workers) == (10, 70, 3)
    assert settings.app_name == "Kronos API"
    assert lines == [
        {
            "event": "env_file_read",
            "log_level": "info",
            "message": f"2 settings read from {env_file}",
        }
    ]
    notes: list[str] = []
    load_settings(notes.append)
    assert notes == [line["message"] for line in lines]
    assert "KRONOS_MAX_QUEUE" not in os.environ


def test_unknown_names_are_reported_with_the_nearest(env_file: Path) -> None:
    env_file.write_text(
        "KRONOS_RATE_LIMT_PER_MINUTE=5\nGUNICORN_WORKER=1\nKRONO_PORT=1\nDEPLOY_TIMEOUTS=1\n"
        "KRONOS_MODEL_DIR=/m\nHTTP_PROXY=http://proxy\nnot a setting at all\n",
        "utf-8",
    )
    notes: list[str] = []
    load_settings(notes.append)
    assert notes[1:] == [
        ".env: line 7 is ignored: it is not of the form NAME=value",
        ".env: 'DEPLOY_TIMEOUTS' is not a setting; did you mean DEPLOY_TIMEOUT?",
        ".env: 'GUNICORN_WORKER' is not a setting; did you mean GUNICORN_WORKERS?",
        ".env: 'KRONOS_MODEL_DIR' is not a setting; did you mean KRONOS_MODELS_DIR?",
        ".env: 'KRONOS_RATE_LIMT_PER_MINUTE' is not a setting; "
        "did you mean KRONOS_RATE_LIMIT_PER_MINUTE?",
        ".env: 'KRONO_PORT' is not a setting; did you mean KRONOS_PORT?",
    ]


def test_a_bad_value_is_reported_with_the_file_that_holds_it(env_file: Path) -> None:
    env_file.write_text("KRONOS_PORT=http\nGUNICORN_WORKERS=two\n", "utf-8")
    with pytest.raises(StartupError) as caught:
        load_settings()
    first, second = str(caught.value).split("; ")
    assert first.startswith("KRONOS_PORT in .env: input should be a valid integer")
    assert second.startswith("GUNICORN_WORKERS in .env: input should be a valid integer")


def test_a_file_that_is_not_text_is_one_line(env_file: Path) -> None:
    env_file.write_bytes(b"KRONOS_PORT=\xff\xfe\n")
    with pytest.raises(StartupError, match=r"^[^\n]*/\.env cannot be read: it is not UTF-8$"):
        load_settings()


def test_without_a_file_nothing_is_reported(env_file: Path) -> None:
    notes: list[str] = []
    load_settings(notes.append)
    env_file.mkdir()  # a virtual environment can have this name
    load_settings(notes.append)
    assert notes == []


def test_the_unchanged_example_file_sets_the_defaults(env_file: Path) -> None:
    example = Path(__file__).parents[2] / ".env.example"
    env_file.write_bytes(example.read_bytes())
    notes: list[str] = []
    settings = load_settings(notes.append)
    env_file.unlink()
    assert settings == load_settings()
    assert len(notes) == 1
