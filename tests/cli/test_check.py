"""`kronos-api check` finds what would stop a start."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kronos_api.checkpoints.hub import BUNDLED
from tests.cli.conftest import Command


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good checkpoint to damage, which the settings name."""
    monkeypatch.setenv("KRONOS_MODEL_PATH", str(tmp_path / "checkpoint"))
    return shutil.copytree(BUNDLED, tmp_path / "checkpoint")


def test_what_is_good_is_told(command: Command) -> None:
    result = command("check")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith(
        ": settings are valid; kronos-demo and kronos-demo load and forecast on cpu"
    )
    assert result.stderr == ""


def test_old_name_of_a_setting_is_one_warning(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRONOS_MAX_WORK", "40000")
    result = command("check")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        "kronos-api: KRONOS_MAX_WORK was renamed to KRONOS_MAX_DECODE_STEPS and is accepted until "
        "version 0.3: rename it"
    ]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KRONOS_REQUEST_TIMEOUT", "1", "must be below KRONOS_REQUEST_TIMEOUT"),
        ("KRONOS_MODEL_PATH", "/nowhere", "/nowhere"),
        ("KRONOS_MODEL_PATH", "/" + 5000 * "n", "too long"),
        ("KRONOS_MODEL_PATH", "~nosuchuser", "cannot be found"),
        ("KRONOS_RATE_LIMITS", "no-such-route=1/minute", "no-such-route"),
        ("KRONOS_RATE_LIMIT_DIR", "/nowhere", "set KRONOS_RATE_LIMIT_DIR to a folder"),
        ("KRONOS_METRICS_DIR", "/dev/null/metrics", "KRONOS_METRICS_DIR"),
        ("KRONOS_DEVICE", "cuda:77", "cuda:77"),
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(
    command: Command, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("KRONOS_DEVICE", device)
    result = command("check")
    told = (
        f"kronos-api: KRONOS_DEVICE is {device}, but torch finds no GPU. Set it to cpu or auto.\n"
    )
    assert (result.exit_code, result.stderr) == (1, told)


def test_a_config_that_cannot_be_read_is_one_line(command: Command, checkpoint: Path) -> None:
    (checkpoint / "model" / "config.json").unlink()
    os.mkfifo(checkpoint / "model" / "config.json")
    result = command("check")
    assert result.exit_code == 1
    assert result.stderr.endswith("config.json is not a regular file\n")
    assert len(result.stderr.splitlines()) == 1


def test_weights_that_are_not_finite_are_found(command: Command, checkpoint: Path) -> None:
    path = checkpoint / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["norm.weight"][0] = float("nan")
    save_file(tensors, path)
    result = command("check")
    assert result.exit_code == 1
    assert "norm.weight holds NaN or infinity (1 of 128 values)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_failure_of_another_kind_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nand more")

    monkeypatch.setattr("kronos_api.lifecycle.build_engine", fail)
    result = command("check")
    told = "kronos-api: the model could not be loaded: CUDA error: out of memory\n"
    assert (result.exit_code, result.stderr) == (1, told)


def test_a_check_that_hangs_ends_at_its_deadline(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends without the interpreter's help, which would wait or crash."""
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(60)

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("kronos_api.lifecycle.build_engine", hang)
    monkeypatch.setattr("kronos_api.server.exit.exit_at_once", leave)
    monkeypatch.setenv("KRONOS_STARTUP_TIMEOUT", "0.5")
    result = command("check")
    release.set()
    assert result.exit_code == 1
    assert "not checked and loaded within KRONOS_STARTUP_TIMEOUT (0.5 s)" in result.stderr
    assert len(result.stderr.splitlines()) == 1
