"""A lower bound of a forecast's time: arithmetic at this machine's rate, plus weights read.

floor = 2 · (multiply-adds) / (GEMM rate) + (bytes of weights that the decode steps
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
class ForecastCost:
    """Arithmetic and memory traffic that every implementation of a forecast needs."""

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
    """Measure both rates with the current number of threads; the better of these and `before`'s.

    On a shared machine, only some measurements reach the full rate.
    """
    left, right = torch.randn(1024, 2048), torch.randn(2048, 2048)
    gemm = best_of(10, lambda: left @ right)
    block = torch.ones(1 << 27)  # 512 MB, larger than the caches
    read = best_of(5, block.sum)
    flops, bandwidth = 2 * 1024 * 2048 * 2048 / gemm, block.nbytes / read
    if before is None:
        return Machine(flops, bandwidth)
    return Machine(max(flops, before.flops), max(bandwidth, before.bandwidth))


def count_cost(
    model: Kronos, tokenizer: KronosTokenizer, history: int, horizon: int, sample_count: int
) -> ForecastCost:
    """Count one forecast whose history and horizon fit the context."""
    layers = _matrix_elements(model.transformer)
    dependency = _matrix_elements(model.dep_layer)
    heads = _matrix_elements(model.head)
    width, depth = model.config.d_model, model.config.n_layers
    decoded = sample_count * (horizon - 1)
    adds = (history + decoded) * (layers + dependency) + sample_count * horizon * heads
    # Attention of each position over those before it; the dependency layer has one query a step.
    adds += 2 * width * depth * (history**2 // 2 + decoded * (history + horizon // 2))
    adds += 2 * width * sample_count * horizon * (history + horizon // 2)
    config = tokenizer.config
    adds += history * (_matrix_elements(tokenizer.encoder) + _matrix_elements(tokenizer.decoder))
    adds += sample_count * horizon * _matrix_elements(tokenizer.decoder)
    attended = 2 * history**2 // 2 + sample_count * horizon * (history + horizon // 2)
    adds += 2 * config.d_model * (config.n_dec_layers - 1) * attended
    step_bytes = 4 * (layers + dependency + heads)
    return ForecastCost(adds, horizon * step_bytes)


def _matrix_elements(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() == 2)
