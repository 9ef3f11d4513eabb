from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kronos_api.model import Kronos, KronosTokenizer
from tests.training.walks import walk, write_csv
from training import checkpoint
from training.candles import split
from training.loop import Schedule, Trainer
from training.losses import (
    binary_entropy,
    code_entropies,
    initialise,
    model_loss,
    tokenizer_error,
    tokenizer_loss,
)
from training.train import Plan, main, train
from training.windows import Sampler, held_out_batches, training_series

TINY = Plan(
    tokenizer_steps=20,
    steps=20,
    batch=4,
    width=16,
    layers=2,
    tokenizer_width=16,
    tokenizer_layers=2,
    bits=4,
    max_history=48,
    max_future=16,
)


@pytest.fixture
def sampler() -> Sampler:
    series = training_series([split(walk(2000))])
    return Sampler(series, max_history=TINY.max_history, max_future=TINY.max_future)


def tokenizer_trainer(sampler: Sampler, steps: int) -> Trainer:
    torch.manual_seed(0)
    model = KronosTokenizer(replace(TINY.tokenizer_config(), resid_dropout_p=0.1))
    initialise(model)
    held_out = held_out_batches([split(walk(2000))], history=48, future=16, most=8, size=8)
    return Trainer(
        model,
        lambda rng, _done: tokenizer_loss(model, sampler.batch(rng, 4)),
        lambda: tokenizer_error(model, held_out[0]).item(),
        Schedule(steps, 5e-3, 0.01, seed=0, validate_every=5, save_every=5),
    )


def test_resumed_equals_uninterrupted(sampler: Sampler, tmp_path: Path) -> None:
    whole = tokenizer_trainer(sampler, 20)
    whole.run(tmp_path / "whole", resume=False)
    tokenizer_trainer(sampler, 20).run(tmp_path / "parts", resume=False, stop_at=8)
    rest = tokenizer_trainer(sampler, 20)
    rest.run(tmp_path / "parts", resume=True)
    assert rest.step == whole.step == 20
    assert rest.best == whole.best
    for name, value in whole.model.state_dict().items():
        assert value.equal(rest.model.state_dict()[name]), name


def test_the_best_weights_are_kept(sampler: Sampler, tmp_path: Path) -> None:
    trainer = tokenizer_trainer(sampler, 20)
    values = iter([3.0, 1.0, 2.0, 2.0])
    at_best: dict[str, torch.Tensor] = {}

    def validate() -> float:
        value = next(values)
        if value == 1.0:
            at_best.update({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return value

    trainer.validate = validate
    trainer.run(tmp_path / "state", resume=False)
    assert trainer.best_step == 10
    assert all(v.equal(at_best[k]) for k, v in trainer.model.state_dict().items())


def test_training_ends_when_nothing_improves(sampler: Sampler, tmp_path: Path) -> None:
    trainer = tokenizer_trainer(sampler, 200)
    trainer.schedule = replace(trainer.schedule, patience=2)
    values = iter([1.0, *[2.0] * 40])
    trainer.validate = lambda: next(values)
    trainer.run(tmp_path / "state", resume=False)
    assert trainer.best_step == 5
    assert trainer.step == 16


@pytest.mark.slow
def test_the_tokenizer_learns_to_reconstruct(sampler: Sampler, tmp_path: Path) -> None:
    trainer = tokenizer_trainer(sampler, 150)
    trainer.model.eval()
    before = trainer.validate()
    trainer.run(tmp_path / "state", resume=False)
    assert trainer.best < 0.6 * before


def test_the_model_learns_tokens(sampler: Sampler, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = KronosTokenizer(TINY.tokenizer_config()).eval()
    model = Kronos(TINY.model_config())
    initialise(model)
    held_out = held_out_batches([split(walk(2000))], history=48, future=16, most=8, size=8)

    def validate() -> float:
        return model_loss(model, tokenizer, held_out[0], history_weight=0).item()

    trainer = Trainer(
        model,
        lambda rng, done: model_loss(
            model, tokenizer, sampler.batch(rng, 4), history_weight=1 - done
        ),
        validate,
        Schedule(40, 1e-2, 0.01, seed=0, validate_every=10),
    )
    model.eval()
    with torch.no_grad():
        before = validate()
    trainer.run(tmp_path / "state", resume=False)
    assert trainer.best < 0.8 * before


def test_history_rows_do_not_count_at_weight_zero(sampler: Sampler) -> None:
    torch.manual_seed(0)
    tokenizer = KronosTokenizer(TINY.tokenizer_config()).eval()
    model = Kronos(TINY.model_config()).eval()
    batch = sampler.batch(np.random.default_rng(0), 4)
    with torch.no_grad():
        s1, s2 = tokenizer.tokens(tokenizer.latents(batch.candles))
        hidden = model.hidden(s1, s2, batch.time_features)[:, :-1]
        coarse = model.s1_logits(hidden).log_softmax(-1).gather(-1, s1[:, 1:, None])
        fine = model.s2_logits(hidden, s1[:, 1:]).log_softmax(-1).gather(-1, s2[:, 1:, None])
        expected = -(coarse + fine)[:, batch.history - 1 :].mean()
        found = model_loss(model, tokenizer, batch, history_weight=0)
    torch.testing.assert_close(found, expected)


def test_entropies_of_decided_and_of_undecided_codes() -> None:
    assert binary_entropy(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx(
        [0, 0.6931, 0], abs=1e-4
    )
    every = torch.cartesian_prod(*[torch.tensor([-100.0, 100.0])] * 4)
    undecided, used = code_entropies(every, group=2)
    assert undecided.item() == pytest.approx(0, abs=1e-4)
    assert used.item() == pytest.approx(4 * np.log(2), rel=1e-4)
    undecided, used = code_entropies(torch.full((5, 4), 100.0), group=2)
    assert used.item() == pytest.approx(0, abs=1e-4)
    undecided, _ = code_entropies(torch.zeros(5, 4), group=2)
    assert undecided.item() == pytest.approx(4 * np.log(2), rel=1e-4)


def test_untrained_minutes_add_nothing() -> None:
    model = Kronos(TINY.model_config())
    initialise(model)
    assert not model.time_emb(torch.tensor([[[7, 3, 2, 1, 5]]])).any()


def test_a_run_writes_a_checkpoint_that_loads(tmp_path: Path) -> None:
    source = write_csv(walk(1500), tmp_path / "walk.csv")
    out = tmp_path / "out"
    train([source], out, replace(TINY, tokenizer_steps=3, steps=3))
    model, tokenizer = checkpoint.read(out)
    assert model.config == TINY.model_config()
    assert tokenizer.config == TINY.tokenizer_config()
    stored = load_file(out / "tokenizer" / "model.safetensors")
    assert stored["tokenizer.bsq.basis"].dtype == torch.int64
    assert stored["encoder.0.self_attn.rotary.inv_freq"].dtype == torch.float32
    assert stored["embed.weight"].dtype == torch.float16
    state = torch.load(out / "model.state", weights_only=True)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.data, state["best_weights"][name].half().float())


def test_a_run_interrupted_in_either_part_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(walk(1500), tmp_path / "walk.csv")
    plan = replace(TINY, tokenizer_steps=9, steps=9)
    train([source], tmp_path / "whole", plan)
    run = Trainer.run
    for cut in ("tokenizer", "model"):

        def interrupted(
            self: Trainer, state: Path, *, resume: bool, label: str, cut: str = cut
        ) -> None:
            run(self, state, resume=resume, label=label, stop_at=5 if label == cut else None)
            if label == cut:
                raise KeyboardInterrupt

        monkeypatch.setattr(Trainer, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train([source], tmp_path / "parts", plan, resume=True)
    monkeypatch.undo()
    train([source], tmp_path / "parts", plan, resume=True)
    for name in ("tokenizer", "model"):
        whole = load_file(tmp_path / "whole" / name / "model.safetensors")
        parts = load_file(tmp_path / "parts" / name / "model.safetensors")
        assert whole.keys() == parts.keys()
        assert all(value.equal(parts[key]) for key, value in whole.items())


def test_the_command_line_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr("training.train.train", lambda *args, **_: plans.append(args[2]))
    threads = torch.get_num_threads()
    main(["--candles", "a.csv", "--out", str(tmp_path), "--steps", "7", "--seed", "3"])
    torch.set_num_threads(threads)
    assert plans == [replace(Plan(), steps=7, seed=3)]
