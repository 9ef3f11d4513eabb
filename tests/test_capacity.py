"""How many workers serve by default, and the share of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kronos_api import capacity
from kronos_api.capacity import Share, share, threads, workers
from kronos_api.config import Settings

SMALL = {"model_id": "NeoQuasar/Kronos-small"}
BASE = {"model_id": "NeoQuasar/Kronos-base"}


@pytest.mark.parametrize(
    ("settings", "cores", "gigabytes", "gpu", "expected"),
    [
        pytest.param(SMALL, 1, 64, False, (1, 1), id="one core"),
        pytest.param(SMALL, 2, 4, False, (2, 1), id="the limits of docker-compose.yml"),
        pytest.param(BASE, 2, 4, False, (1, 2), id="large weights in little memory"),
        pytest.param(SMALL, 4, 64, False, (4, 1), id="four cores"),
        pytest.param(SMALL, 16, 64, False, (8, 2), id="many cores"),
        pytest.param(SMALL, 4, 1, False, (1, 4), id="less memory than one needs"),
        pytest.param(SMALL | {"torch_threads": 2}, 4, 64, False, (2, 2), id="threads are given"),
        pytest.param(SMALL | {"GUNICORN_WORKERS": 1}, 4, 64, False, (1, 4), id="one is wanted"),
        pytest.param(SMALL | {"GUNICORN_WORKERS": 3}, 2, 1, True, (3, 1), id="three are wanted"),
        pytest.param({}, 4, 64, False, (1, 4), id="bundled demonstration"),
        pytest.param(SMALL, 4, 64, True, (1, 4), id="a GPU"),
        pytest.param(SMALL | {"device": "cpu"}, 4, 64, True, (4, 1), id="a GPU that is not used"),
        pytest.param(SMALL | {"device": "cuda:1"}, 4, 64, False, (1, 4), id="a GPU by number"),
    ],
)
def test_default_is_a_worker_of_one_thread_for_each_core(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    settings: dict[str, Any],
    cores: int,
    gigabytes: int,
    gpu: bool,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setattr(capacity, "usable_cores", lambda: cores)
    monkeypatch.setattr(capacity, "usable_memory", lambda: gigabytes << 30)
    monkeypatch.setattr(capacity, "GPU", tmp_path if gpu else tmp_path / "none")
    read = Settings(**settings)
    count = workers(read)
    assert (count, threads(read, count)) == expected


def test_weights_of_a_local_checkpoint_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capacity, "usable_cores", lambda: 2)
    monkeypatch.setattr(capacity, "usable_memory", lambda: 4 << 30)
    for name in ("model", "tokenizer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    settings = Settings(model_path=tmp_path, device="cpu")
    assert workers(settings) == 2
    with (tmp_path / "model" / "model.safetensors").open("wb") as file:
        file.truncate(400 << 20)
    assert workers(settings) == 1


def test_workers_divide_memory_and_queue_of_the_service() -> None:
    settings = Settings(kv_cache_mb=1000, max_queue=70, body_memory_mb=256, max_request_size_mb=20)
    assert share(settings, 1) == Share(kv_cache_mb=1000, max_queue=70, body_memory_mb=256)
    assert share(settings, 4) == Share(kv_cache_mb=250, max_queue=18, body_memory_mb=64)


def test_every_worker_can_take_the_largest_body() -> None:
    settings = Settings(body_memory_mb=64, max_request_size_mb=20)
    assert share(settings, 4).body_memory_mb == 40
