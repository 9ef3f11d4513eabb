"""Tokens sampled from logits; each row has its own temperature, top_k, top_p and random stream.

A row's token depends on its own logits, parameters and uniform number alone, so sampling is
batch-invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one forecast are sampled, in `sample_count` sample paths.

    temperature 0 or top_k 1 is greedy; top_k 0 and top_p 1 are off. top_k is applied before top_p.
    seed: 0 … 2^53 - 1.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    sample_count: int = 1
    seed: int = 0

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, whatever the seed."""
        return self.temperature == 0 or self.top_k == 1


@dataclass(frozen=True, slots=True)
class SamplingTensors:
    """The parameters of R rows, one a sample path; every tensor is [R]."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    greedy: Tensor
    all_greedy: bool
    any_greedy: bool
    any_top_k: bool
    any_top_p: bool

    @classmethod
    def of(cls, params: SamplingParams) -> SamplingTensors:
        """Rows of all sample paths of one forecast."""
        rows, greedy = (params.sample_count,), params.greedy
        return cls(
            temperature=torch.full(rows, 1.0 if greedy else params.temperature),
            top_k=torch.full(rows, params.top_k),
            top_p=torch.full(rows, params.top_p),
            greedy=torch.full(rows, greedy),
            all_greedy=greedy,
            any_greedy=greedy,
            any_top_k=not greedy and params.top_k > 0,
            any_top_p=not greedy and params.top_p < 1,
        )

    @classmethod
    def join(cls, parts: list[SamplingTensors]) -> SamplingTensors:
        """Rows of several forecasts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            temperature=torch.cat([part.temperature for part in parts]),
            top_k=torch.cat([part.top_k for part in parts]),
            top_p=torch.cat([part.top_p for part in parts]),
            greedy=torch.cat([part.greedy for part in parts]),
            all_greedy=all(part.all_greedy for part in parts),
            any_greedy=any(part.any_greedy for part in parts),
            any_top_k=any(part.any_top_k for part in parts),
            any_top_p=any(part.any_top_p for part in parts),
        )

    def to(self, device: torch.device) -> SamplingTensors:
        """Move to `device`."""
        return replace(
            self,
            temperature=self.temperature.to(device),
            top_k=self.top_k.to(device),
            top_p=self.top_p.to(device),
            greedy=self.greedy.to(device),
        )


def uniforms(seed: int, sample_count: int, draws: int) -> NDArray[np.float64]:
    """Random numbers in [0, 1) for each sample path: float64 [sample_count, draws].

    Path p draws from the counter-based Philox stream keyed by (seed, p), so its numbers depend on
    neither the other paths nor how many there are.
    """
    streams = [
        np.random.Generator(np.random.Philox(key=(seed, path))) for path in range(sample_count)
    ]
    return np.stack([stream.random(draws) for stream in streams])


Draw = Callable[[Tensor, SamplingTensors, Tensor], Tensor]


def draw(probabilities: Tensor, sampling: SamplingTensors, uniform: Tensor) -> Tensor:
    """Draw one token a row from those that top_k and top_p keep.

    Args:
        probabilities: float32 [R, V].
        uniform: float64 [R], in [0, 1).

    Returns:
        int64 [R].
    """
    if sampling.any_top_k or sampling.any_top_p:
        probabilities = _keep_likely(probabilities, sampling)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1]
    # uniform · total may round up to the total, which lies past the last token.
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)


def sample(logits: Tensor, sampling: SamplingTensors, uniform: Tensor, draw: Draw) -> Tensor:
    """Draw one token a row from `logits`, float32 [R, V], or take the likeliest: int64 [R].

    uniform: float64 [R], in [0, 1). draw: draws from probabilities, as `draw` does.
    """
    if sampling.all_greedy:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / sampling.temperature.unsqueeze(-1), dim=-1)
    drawn = draw(probabilities, sampling, uniform)
    return torch.where(sampling.greedy, logits.argmax(-1), drawn) if sampling.any_greedy else drawn


def _keep_likely(probabilities: Tensor, sampling: SamplingTensors) -> Tensor:
    """Zero the tokens that top_k and top_p exclude; those as likely as the last one kept stay."""
    ordered = _descending(probabilities)
    smallest = ordered[:, -1:]
    if sampling.any_top_k:
        last = sampling.top_k.clamp(max=ordered.shape[-1]) - 1
        smallest = ordered.gather(-1, last.where(last >= 0, ordered.shape[-1] - 1).unsqueeze(-1))
        ordered = ordered.where(ordered >= smallest, 0.0)
    if sampling.any_top_p:
        cumulative = ordered.cumsum(-1, dtype=torch.float64)
        top_p = sampling.top_p.unsqueeze(-1)
        # A token stays while those before it do not yet exceed top_p: the first always does.
        kept = (cumulative[:, :-1] <= cumulative[:, -1:] * top_p).sum(-1, keepdim=True)
        kept = kept.where(top_p < 1, ordered.shape[-1] - 1)
        smallest = torch.maximum(smallest, ordered.gather(-1, kept))
    return probabilities.where(probabilities >= smallest, 0.0)


def _descending(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        # NumPy sorts values without indices, vectorised, several times faster than torch.
        return torch.from_numpy(-np.sort(-values.numpy(), axis=-1))
    return values.sort(dim=-1, descending=True).values
