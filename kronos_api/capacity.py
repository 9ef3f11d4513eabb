"""How many worker processes serve, and the share of each in what the settings give the service.

One process with one compute thread for each core answers more requests a second than one process
with many threads, which wait for each other at every matmul. Each process has its own weights, so
memory bounds their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kronos_api.checkpoints.info import WEIGHTS
from kronos_api.checkpoints.registry import PUBLISHED, split
from kronos_api.config import Settings
from kronos_api.cores import usable_cores
from kronos_api.memory import usable_memory

MAX_WORKERS: Final = 8
"""Workers by default at most: beyond, each decode step has so few batch-mates that reading its
process's copy of the weights dominates, and further cores serve better as threads."""
GPU: Final = Path("/dev/nvidiactl")

MASTER_MB: Final = 350
"""MiB of the master: Python, PyTorch and the service, which the workers share with it."""
WORKER_MB: Final = 250
"""MiB that a worker adds, its weights and KV cache aside, while it computes ten forecasts."""
WEIGHT_COPIES: Final = 2.5
"""A worker's memory for weights, in sizes of their file: packed, and while it loads."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one worker in the memory and the queue of the service."""

    kv_cache_mb: int
    max_queue: int
    body_memory_mb: int


def workers(settings: Settings) -> int:
    """The number of worker processes.

    GUNICORN_WORKERS, or else one for each core (of KRONOS_TORCH_THREADS cores, if that is set), at
    most `MAX_WORKERS` and as many as memory holds; one on a GPU, and one for the bundled
    demonstration, whose forecasts take milliseconds.
    """
    if settings.workers is not None:
        return settings.workers
    # torch is not asked: a process that has initialised CUDA cannot be forked.
    on_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and GPU.exists())
    if on_gpu or settings.model_source is None:
        return 1
    by_cores = usable_cores() // (settings.torch_threads or 1)
    return max(1, min(by_cores, MAX_WORKERS, _fitting(settings)))


def threads(settings: Settings, workers: int) -> int:
    """Compute threads of one of `workers` processes."""
    return settings.torch_threads or max(1, usable_cores() // workers)


def share(settings: Settings, workers: int) -> Share:
    """The share of one of `workers` processes; each can take the largest body that is allowed."""
    largest = math.ceil(2 * settings.max_request_size_mb)
    return Share(
        kv_cache_mb=max(1, settings.kv_cache_mb // workers),
        max_queue=math.ceil(settings.max_queue / workers),
        body_memory_mb=max(largest, settings.body_memory_mb // workers),
    )


def _fitting(settings: Settings) -> int:
    """Workers that the memory of this machine or container holds, by their peak."""
    weights = _weights_mb(settings.model_source) + _weights_mb(settings.tokenizer_source)
    left = usable_memory() / 2**20 - MASTER_MB - settings.kv_cache_mb - settings.body_memory_mb
    cached = settings.cache_mb if settings.cache == "memory" else 0
    return int(left / (WORKER_MB + WEIGHT_COPIES * weights + cached))


def _weights_mb(source: str | None) -> float:
    """MiB of the weights of a checkpoint, a folder or a hub id; 0 if nothing is known of them."""
    if source is None:
        return 0.0
    try:
        return (Path(source).expanduser() / WEIGHTS).stat().st_size / 2**20
    except (OSError, RuntimeError):  # not a folder; a user without a home
        published = PUBLISHED.get(split(source)[0])
        return published.megabytes if published else 0.0
