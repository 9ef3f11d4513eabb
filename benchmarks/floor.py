"""The time no implementation can beat: arithmetic at this machine's rate, plus weights read.

floor = 2 · (multiply-adds) / (matrix product rate) + (bytes of weights that the decode steps
read) / (memory bandwidth), with both rates measured in the run that uses them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from kronos_api.model import Kronos, KronosTokenizer


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured rates: float32 operations and bytes a second."""

    flops: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a forecast cannot do without."""

    multiply_adds: int
    weight_bytes: int

    def seconds(self, machine: Machine) -> float:
        """The floor on `machine`."""
        return 2 * self.multiply_adds / machine.flops + self.weight_bytes / machine.bandwidth


def best_of(repeats: int, run: Callable[[], object]) -> float:
    """Shortest of `repeats` runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure_machine(before: Machine | None = None) -> Machine:
    """Measure both rates with the threads torch has now; the better of these and `before`'s.

    A machine that others use as well shows what it can do only now and then.
    """
    left, right = torch.randn(1024, 2048), torch.randn(2048, 2048)
    product = best_of(10, lambda: left @ right)
    block = torch.ones(1 << 27)  # 512 MB, larger than the caches
    read = best_of(5, block.sum)
    flops, bandwidth = 2 * 1024 * 2048 * 2048 / product, block.nbytes / read
    if before is None:
        return Machine(flops, bandwidth)
    return Machine(max(flops, before.flops), max(bandwidth, before.bandwidth))


def count_work(
    model: Kronos, tokenizer: KronosTokenizer, history: int, horizon: int, paths: int
) -> Work:
    """Count one forecast of `paths` sample paths, in a context that holds all of it."""
    layers = _matrix_elements(model.transformer)
    dependency = _matrix_elements(model.dep_layer)
    heads = _matrix_elements(model.head)
    width, depth = model.config.d_model, model.config.n_layers
    decoded = paths * (horizon - 1)
    adds = (history + decoded) * (layers + dependency) + paths * horizon * heads
    # Scores and mixing, each position with all before it; the dependency layer looks once a step.
    adds += 2 * width * depth * (history**2 // 2 + decoded * (history + horizon // 2))
    adds += 2 * width * paths * horizon * (history + horizon // 2)
    codec = tokenizer.config
    adds += history * (_matrix_elements(tokenizer.encoder) + _matrix_elements(tokenizer.decoder))
    adds += paths * horizon * _matrix_elements(tokenizer.decoder)
    attended = 2 * history**2 // 2 + paths * horizon * (history + horizon // 2)
    adds += 2 * codec.d_model * (codec.n_dec_layers - 1) * attended
    step_bytes = 4 * (layers + dependency + heads)
    return Work(adds, horizon * step_bytes)


def _matrix_elements(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() == 2)
