"""A training loop that can be stopped at any step and gives the same result when resumed.

Batches and dropout are drawn from (seed, step), so weights, optimiser and step number are the
whole state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Never

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

WARM_UP = 0.05
GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length, learning rate and regularisation of one training run."""

    steps: int
    learning_rate: float
    weight_decay: float
    seed: int
    validate_every: int = 50
    save_every: int = 50
    patience: int = 12
    """Validations without an improvement after which training ends."""

    def rate(self, step: int) -> float:
        """Learning rate at `step`: linear warm-up, then half a cosine to zero."""
        done = step / self.steps
        if done < WARM_UP:
            return self.learning_rate * (step + 1) / (WARM_UP * self.steps + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


Loss = Callable[[np.random.Generator, float], Tensor]
"""(random numbers of this step, share of training done) → loss of a fresh batch."""


class Trainer:
    """Trains `model` in place and keeps the weights of its best validation."""

    def __init__(
        self, model: nn.Module, loss: Loss, validate: Callable[[], float], schedule: Schedule
    ) -> None:
        self.model = model
        self.loss = loss
        self.validate = validate
        self.schedule = schedule
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": schedule.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.step = 0
        self.best = math.inf
        self.best_step = 0
        self.best_weights = {k: v.clone() for k, v in model.state_dict().items()}

    def run(
        self, state: Path, *, resume: bool, stop_at: int | None = None, label: str = ""
    ) -> None:
        """Train to the end, or stop before step `stop_at`, and load the best weights.

        The state is in the file `state`; with `resume`, training continues from it if it exists.
        """
        if resume and state.exists():
            self.load(state)
        end = self.schedule.steps if stop_at is None else min(stop_at, self.schedule.steps)
        bar = tqdm(total=self.schedule.steps, initial=self.step, desc=label, mininterval=5.0)
        with bar:
            while self.step < end and not self._out_of_patience():
                self._one_step(bar)
                if self.step % self.schedule.save_every == 0 or self.step == end:
                    self.save(state)
        self.model.load_state_dict(self.best_weights)

    def _one_step(self, bar: tqdm[Never]) -> None:
        schedule = self.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.rate(self.step)
        torch.manual_seed(schedule.seed * 1_000_003 + self.step)
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        rng = np.random.default_rng([schedule.seed, self.step])
        loss = self.loss(rng, self.step / schedule.steps)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimiser.step()
        self.step += 1
        bar.update()
        if self.step % schedule.validate_every == 0 or self.step == schedule.steps:
            self._keep_best()
            bar.set_postfix(train=f"{loss.item():.4f}", best=f"{self.best:.4f}@{self.best_step}")

    @torch.no_grad()
    def _keep_best(self) -> None:
        self.model.eval()
        value = self.validate()
        if value < self.best:
            self.best, self.best_step = value, self.step
            self.best_weights = {k: v.clone() for k, v in self.model.state_dict().items()}

    def _out_of_patience(self) -> bool:
        waited = self.step - self.best_step
        return waited > self.schedule.patience * self.schedule.validate_every

    def save(self, path: Path) -> None:
        """Write the state atomically: a reader sees the old file or the new one."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "best_weights": self.best_weights,
        }
        scratch = path.with_suffix(".part")
        torch.save(state, scratch)
        scratch.replace(path)

    def load(self, path: Path) -> None:
        """Continue from the state in `path`."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.best = state["step"], state["best"]
        self.best_step, self.best_weights = state["best_step"], state["best_weights"]
