"""Choosing tokens from logits, each row with its own temperature, top_k, top_p and random stream.

A row's choice depends on nothing but its own logits, options and uniform number, so it is the same
in any company.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Options:
    """How rows are sampled; every tensor is [R].

    temperature 0 or top_k 1 is greedy; top_k 0 and top_p 1 are off. top_k is applied before top_p.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    greedy: Tensor
    all_greedy: bool
    any_filter: bool

    @classmethod
    def of(cls, temperature: float, top_k: int, top_p: float, rows: int) -> Options:
        """Options of `rows` sample paths of one request."""
        greedy = temperature == 0 or top_k == 1
        return cls(
            temperature=torch.full((rows,), 1.0 if greedy else temperature),
            top_k=torch.full((rows,), top_k),
            top_p=torch.full((rows,), top_p),
            greedy=torch.full((rows,), greedy),
            all_greedy=greedy,
            any_filter=not greedy and (top_k > 0 or top_p < 1),
        )

    @classmethod
    def join(cls, parts: list[Options]) -> Options:
        """Options of several requests' rows, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            temperature=torch.cat([part.temperature for part in parts]),
            top_k=torch.cat([part.top_k for part in parts]),
            top_p=torch.cat([part.top_p for part in parts]),
            greedy=torch.cat([part.greedy for part in parts]),
            all_greedy=all(part.all_greedy for part in parts),
            any_filter=any(part.any_filter for part in parts),
        )

    def to(self, device: torch.device) -> Options:
        """Move to `device`."""
        return Options(
            self.temperature.to(device),
            self.top_k.to(device),
            self.top_p.to(device),
            self.greedy.to(device),
            self.all_greedy,
            self.any_filter,
        )


def uniforms(seed: int, paths: int, draws: int) -> NDArray[np.float64]:
    """Random numbers in [0, 1) for `paths` sample paths: float64 [paths, draws].

    Path p draws from the counter-based Philox stream keyed by (seed, p), so its numbers depend on
    neither the other paths nor how many there are.
    """
    streams = [np.random.Generator(np.random.Philox(key=(seed, path))) for path in range(paths)]
    return np.stack([stream.random(draws) for stream in streams])


def choose(logits: Tensor, options: Options, uniform: Tensor) -> Tensor:
    """Draw one token a row.

    Args:
        logits: float32 [R, V].
        uniform: float64 [R], in [0, 1).

    Returns:
        int64 [R].
    """
    if options.all_greedy:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / options.temperature.unsqueeze(-1), dim=-1)
    if options.any_filter:
        probabilities = _keep_likely(probabilities, options)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1]
    # A product that rounds up to the total would fall past the last token.
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
    return torch.where(options.greedy, logits.argmax(-1), drawn)


def _keep_likely(probabilities: Tensor, options: Options) -> Tensor:
    """Zero what top_k and top_p exclude; tokens as likely as the last one kept stay."""
    ordered = _descending(probabilities)
    last = torch.where(options.top_k > 0, options.top_k.clamp(max=ordered.shape[-1]), 0) - 1
    smallest = ordered.gather(-1, last.clamp(min=0).unsqueeze(-1))
    smallest = torch.where((last >= 0).unsqueeze(-1), smallest, 0.0)
    ordered = torch.where(ordered >= smallest, ordered, 0.0)
    cumulative = ordered.cumsum(-1, dtype=torch.float64)
    nucleus = cumulative[:, -1:] * options.top_p.unsqueeze(-1)
    # A token stays while those before it do not yet exceed top_p: the first always does.
    kept = (cumulative[:, :-1] <= nucleus).sum(-1, keepdim=True)
    kept = torch.where(options.top_p.unsqueeze(-1) < 1, kept, ordered.shape[-1] - 1)
    smallest = torch.maximum(smallest, ordered.gather(-1, kept))
    return torch.where(probabilities >= smallest, probabilities, 0.0)


def _descending(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        # NumPy's vectorised sort of values alone is several times faster than torch's.
        return torch.from_numpy(-np.sort(-values.numpy(), axis=-1))
    return values.sort(dim=-1, descending=True).values
