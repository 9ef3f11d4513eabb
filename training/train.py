"""Train a tokenizer, then a model on its tokens.

`python -m training.train --candles A.csv B.csv --out DIR` writes both into DIR.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kronos_api.model import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig
from training import checkpoint
from training.candles import load, split
from training.loop import Schedule, Trainer
from training.losses import initialise, model_loss, tokenizer_error, tokenizer_loss
from training.windows import (
    FUTURE,
    HISTORY,
    Batch,
    Sampler,
    held_out_batches,
    training_series,
)

DROPOUT = 0.1
VALIDATION_FUTURE = 48
VALIDATION_WINDOWS = 40
"""Validation windows of one series."""
FUTURE_ONLY_AFTER = 0.5
"""Share of the model's training after which rows of the history have no weight."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train and for how long."""

    tokenizer_steps: int = 1000
    steps: int = 1000
    batch: int = 16
    seed: int = 0
    width: int = 128
    layers: int = 4
    tokenizer_width: int = 64
    tokenizer_layers: int = 4
    bits: int = 8
    max_history: int = HISTORY[1]
    max_future: int = FUTURE[1]

    def tokenizer_config(self) -> TokenizerConfig:
        """Shape of the tokenizer; like published ones, it counts a layer more than it has."""
        return TokenizerConfig(
            d_in=6,
            d_model=self.tokenizer_width,
            n_heads=4,
            ff_dim=2 * self.tokenizer_width,
            n_enc_layers=self.tokenizer_layers,
            n_dec_layers=self.tokenizer_layers,
            s1_bits=self.bits,
            s2_bits=self.bits,
        )

    def model_config(self) -> KronosConfig:
        """Shape of the model."""
        return KronosConfig(
            s1_bits=self.bits,
            s2_bits=self.bits,
            n_layers=self.layers,
            d_model=self.width,
            n_heads=4,
            ff_dim=2 * self.width,
            ffn_dropout_p=DROPOUT,
            resid_dropout_p=DROPOUT,
            token_dropout_p=DROPOUT,
        )


def train_tokenizer(
    plan: Plan, sampler: Sampler, held_out: Sequence[Batch], out: Path, resume: bool
) -> tuple[KronosTokenizer, Trainer]:
    """Train the tokenizer and write it to `out`/tokenizer."""
    torch.manual_seed(plan.seed)
    model = KronosTokenizer(plan.tokenizer_config())
    initialise(model)
    trainer = Trainer(
        model,
        lambda rng, _done: tokenizer_loss(model, sampler.batch(rng, plan.batch)),
        lambda: float(np.mean([tokenizer_error(model, batch).item() for batch in held_out])),
        Schedule(plan.tokenizer_steps, 2e-3, 0.01, plan.seed),
    )
    trainer.run(out / "tokenizer.state", resume=resume, label="tokenizer")
    checkpoint.write(model, out / "tokenizer")
    return model.eval(), trainer


def train_model(
    plan: Plan,
    tokenizer: KronosTokenizer,
    sampler: Sampler,
    held_out: Sequence[Batch],
    out: Path,
    resume: bool,
) -> tuple[Kronos, Trainer]:
    """Train a model on the tokens of `tokenizer` and write it to `out`/model."""
    torch.manual_seed(plan.seed + 1)
    model = Kronos(plan.model_config())
    initialise(model)

    def loss(rng: np.random.Generator, done: float) -> torch.Tensor:
        weight = max(0.0, 1 - done / FUTURE_ONLY_AFTER)
        batch = sampler.batch(rng, plan.batch)
        return model_loss(model, tokenizer, batch, history_weight=weight)

    def validate() -> float:
        losses = [model_loss(model, tokenizer, batch, history_weight=0) for batch in held_out]
        return float(np.mean([loss.item() for loss in losses]))

    schedule = Schedule(plan.steps, 2e-3, 0.1, plan.seed + 1)
    trainer = Trainer(model, loss, validate, schedule)
    trainer.run(out / "model.state", resume=resume, label="model")
    checkpoint.write(model, out / "model")
    return model.eval(), trainer


def train(sources: Sequence[str], out: Path, plan: Plan, *, resume: bool = False) -> None:
    """Train tokenizer and model on the training parts of `sources`; the checkpoint is in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    splits = [split(load(source)) for source in sources]
    sampler = Sampler(
        training_series(splits), max_history=plan.max_history, max_future=plan.max_future
    )
    held_out = held_out_batches(
        splits,
        history=plan.max_history,
        future=min(VALIDATION_FUTURE, plan.max_future),
        most=VALIDATION_WINDOWS,
        size=plan.batch,
    )
    tokenizer, first = train_tokenizer(plan, sampler, held_out, out, resume)
    print(f"tokenizer: validation error {first.best:.4f} at step {first.best_step}")
    model, second = train_model(plan, tokenizer, sampler, held_out, out, resume)
    print(f"model: validation loss {second.best:.4f} nats at step {second.best_step}")
    report = {
        "tokenizer": {"validation_error": first.best, "step": first.best_step},
        "model": {"validation_loss": second.best, "step": second.best_step},
        "parameters": {
            "tokenizer": sum(p.numel() for p in tokenizer.parameters()),
            "model": sum(p.numel() for p in model.parameters()),
        },
        "seconds": round(time.monotonic() - started),
    }
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--candles", nargs="+", required=True, help="CSV files or backtesting:NAME")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and state")
    parser.add_argument("--tokenizer-steps", type=int, default=plan.tokenizer_steps)
    parser.add_argument("--steps", type=int, default=plan.steps, help="steps of the model")
    parser.add_argument("--batch", type=int, default=plan.batch, help="windows in a step")
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    plan = Plan(
        tokenizer_steps=chosen.tokenizer_steps,
        steps=chosen.steps,
        batch=chosen.batch,
        seed=chosen.seed,
    )
    train(chosen.candles, chosen.out, plan, resume=chosen.resume)


if __name__ == "__main__":
    main()
