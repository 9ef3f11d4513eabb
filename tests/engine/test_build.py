"""Device, dtype, context and threads of an engine built from checkpoints."""

from __future__ import annotations

import pytest
import torch

from kronos_api.engine import build
from kronos_api.engine.build import build_engine
from kronos_api.errors import StartupError
from tests.oracle import MakeOracle


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("asked", "count", "chosen", "warned"),
    [
        ("auto", 0, "cpu", False),
        ("auto", 2, "cuda:0", False),
        ("cuda", 1, "cuda:0", False),
        ("cuda:1", 2, "cuda:1", False),
        ("cpu", 0, "cpu", False),
        ("cpu", 1, "cpu", True),
    ],
)
def test_device(
    monkeypatch: pytest.MonkeyPatch, asked: str, count: int, chosen: str, warned: bool
) -> None:
    gpus(monkeypatch, count)
    device, warning = build._choose_device(asked)
    assert (str(device), warning is not None) == (chosen, warned)


@pytest.mark.parametrize(("asked", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_missing_gpu_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, asked: str, count: int
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(StartupError, match=f"KRONOS_DEVICE is {asked}"):
        build._choose_device(asked)


@pytest.mark.parametrize(("asked", "context"), [(None, 512), (48, 48)])
def test_context_is_that_of_the_model_unless_given(
    oracles: MakeOracle, asked: int | None, context: int
) -> None:
    oracle = oracles("tiny")
    engine = build_engine(*oracle.sources, device="cpu", max_context=asked, torch_threads=1)
    assert engine.info.max_context == context
    assert (engine.info.dtype, engine.info.device, engine.info.demo) == ("float32", "cpu", False)


def test_threads_are_those_given(oracles: MakeOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", sizes.append)
    monkeypatch.setattr(build, "usable_cores", lambda: 7)
    for threads in (3, None):
        build_engine(*oracles("tiny").sources, device="cpu", torch_threads=threads)
    assert sizes == [3, 7]
