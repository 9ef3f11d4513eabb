"""Choosing tokens from logits, each row with its own temperature, top_k, top_p and random stream.

A row's choice depends on nothing but its own logits, options and uniform number, so it is the same
in any company.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    any_greedy: bool
    any_top_k: bool
    any_top_p: bool

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
            any_greedy=greedy,
            any_top_k=not greedy and top_k > 0,
            any_top_p=not greedy and top_p < 1,
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
            any_greedy=any(part.any_greedy for part in parts),
            any_top_k=any(part.any_top_k for part in parts),
            any_top_p=any(part.any_top_p for part in parts),
        )

    def to(self, device: torch.device) -> Options:
        """Move to `device`."""
        return replace(
            self,
            temperature=self.temperature.to(device),
            top_k=self.top_k.to(device),
            top_p=self.top_p.to(device),
            greedy=self.greedy.to(device),
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
    if options.any_top_k or options.any_top_p:
        probabilities = _keep_likely(probabilities, options)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1]
    # A product that rounds up to the total would fall past the last token.
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
    return torch.where(options.greedy, logits.argmax(-1), drawn) if options.any_greedy else drawn


def _keep_likely(probabilities: Tensor, options: Options) -> Tensor:
    """Zero what top_k and top_p exclude; tokens as likely as the last one kept stay."""
    ordered = _descending(probabilities)
    smallest = ordered[:, -1:]
    if options.any_top_k:
        last = options.top_k.clamp(max=ordered.shape[-1]) - 1
        smallest = ordered.gather(-1, last.where(last >= 0, ordered.shape[-1] - 1).unsqueeze(-1))
        ordered = ordered.where(ordered >= smallest, 0.0)
    if options.any_top_p:
        cumulative = ordered.cumsum(-1, dtype=torch.float64)
        top_p = options.top_p.unsqueeze(-1)
        # A token stays while those before it do not yet exceed top_p: the first always does.
        kept = (cumulative[:, :-1] <= cumulative[:, -1:] * top_p).sum(-1, keepdim=True)
        kept = kept.where(top_p < 1, ordered.shape[-1] - 1)
        smallest = torch.maximum(smallest, ordered.gather(-1, kept))
    return probabilities.where(probabilities >= smallest, 0.0)


def _descending(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        # NumPy's vectorised sort of values alone is several times faster than torch's.
        return torch.from_numpy(-np.sort(-values.numpy(), axis=-1))
    return values.sort(dim=-1, descending=True).values
