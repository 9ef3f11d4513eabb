"""Damaged checkpoints are refused with one line; sound ones are loaded as float32."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kronos_api.checkpoints.hub import locate
from kronos_api.checkpoints.info import WEIGHTS, Source
from kronos_api.checkpoints.loader import context_of, inspect, load_model, load_tokenizer
from kronos_api.checkpoints.registry import PUBLISHED, Published
from kronos_api.errors import StartupError
from tests.oracle import MakeOracle
from tests.processes import run

Damage = Callable[[Path], None]


@pytest.fixture
def folder(oracles: MakeOracle, tmp_path: Path) -> Path:
    """A good checkpoint to damage: model/ and tokenizer/."""
    good = oracles("tiny").sources[0].folder.parent
    return shutil.copytree(good, tmp_path / "checkpoint")


def sources(folder: Path) -> tuple[Source, Source]:
    return (
        locate(str(folder / "model"), "model", timeout=1),
        locate(str(folder / "tokenizer"), "tokenizer", timeout=1),
    )


def change_config(part: str, **values: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / part / "config.json"
        config = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return damage


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model" / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return damage


def write(name: str, content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def replace(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def cut_short(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: shutil.rmtree(f / "model"), ["model folder", "does not exist"]),
        (lambda f: (f / "model/config.json").unlink(), ["config.json is missing"]),
        (lambda f: (f / "tokenizer/model.safetensors").unlink(), ["tokenizer", "is missing"]),
        (write("model/config.json", b"{"), ["config.json is not usable"]),
        (write("model/config.json", b"[1]"), ["not an object"]),
        (write("model/config.json", b"\xff\xfe"), ["config.json is not usable"]),
        (change_config("model", n_heads=None), ["missing key 'n_heads'"]),
        (change_config("model", colour=1), ["unknown key 'colour'"]),
        (change_config("model", n_layers="2"), ["'n_layers' must be of type int"]),
        (change_config("model", n_layers=True), ["'n_layers' must be of type int"]),
        (change_config("model", n_layers=10**9), ["'n_layers' must be from 1 to 256"]),
        (change_config("model", n_layers=-1), ["'n_layers' must be from 1 to 256"]),
        (change_config("model", d_model=2**40), ["'d_model' must be from 1 to 16384"]),
        (change_config("model", s1_bits=63), ["'s1_bits' must be from 1 to 20"]),
        (change_config("tokenizer", n_enc_layers=10**9), ["'n_enc_layers' must be from"]),
        (change_config("model", ffn_dropout_p=float("nan")), ["'ffn_dropout_p' must be finite"]),
        (change_config("model", ffn_dropout_p=10**400), ["config.json is not usable"]),
        (write("model/config.json", b"[" * 100_000), ["nested too deeply"]),
        (write("model/config.json", b" " * (1 << 21)), ["larger than 1048576 bytes"]),
        (replace("model/config.json", os.mkfifo), ["config.json is not a regular file"]),
        (replace("model/config.json", os.mkdir), ["config.json is not a regular file"]),
        (replace("model/config.json", endless), ["config.json is not a regular file"]),
        (replace("tokenizer/model.safetensors", os.mkfifo), ["is not a regular file"]),
        (replace("tokenizer/model.safetensors", endless), ["is not a regular file"]),
        (change_config("model", n_heads=7), ["a multiple of 2 x 7 heads"]),
        (change_config("model", learn_te=False), ["learn_te"]),
        (change_config("tokenizer", d_in=5), ["d_in"]),
        (change_config("model", n_layers=3), ["lacks the tensor transformer.2"]),
        (change_config("model", n_layers=1), ["unexpected tensor transformer.1"]),
        (change_config("model", ff_dim=96), ["ffn.w1.weight has shape [128, 64], not [96, 64]"]),
        (cut_short, ["not a whole safetensors file"]),
        (write("model/model.safetensors", b""), ["not a whole safetensors file"]),
        (write("model/model.safetensors", b"\x80\x04pickle"), ["not a whole safetensors file"]),
        (change_tensors(lambda t: t.pop("norm.weight")), ["lacks the tensor norm.weight"]),
        (change_tensors(lambda t: t.update(more=torch.ones(1))), ["unexpected tensor more"]),
        (
            change_tensors(lambda t: t.update({"norm.weight": torch.ones(64).double()})),
            ["norm.weight is of type F64"],
        ),
    ],
)
def test_damaged_checkpoint_is_refused_in_one_line(
    folder: Path, damage: Damage, words: list[str]
) -> None:
    damage(folder)
    with pytest.raises(StartupError) as refusal:
        inspect(*sources(folder))
    message = str(refusal.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_tokenizer_with_other_token_sizes_is_refused(folder: Path) -> None:
    import model

    from tests.oracle import TOKENIZER

    narrow = TOKENIZER | {"s1_bits": 8, "s2_bits": 8}
    model.KronosTokenizer(**narrow).save_pretrained(folder / "tokenizer")
    with pytest.raises(StartupError, match=r"makes tokens of 8\+8 bits, model .* reads 10\+10"):
        inspect(*sources(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    change_tensors(lambda tensors: tensors["norm.weight"][3:5].fill_(value))(folder)
    inspect(*sources(folder))  # it does not read the weights
    with pytest.raises(StartupError, match=r"norm.weight holds NaN or infinity \(2 of 64 values\)"):
        load_model(sources(folder)[0])


def test_half_precision_is_loaded_as_float32(folder: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({k: v.half() for k, v in tensors.items() if v.is_floating_point()})

    change_tensors(halve)(folder)
    model, part = load_model(sources(folder)[0])
    assert model.norm.weight.dtype == torch.float32
    assert not model.training
    assert part.parameters == sum(p.numel() for p in model.parameters()) > 100_000
    assert len(part.sha256) == 64


@pytest.mark.parametrize("revision", [None, "abc"])
def test_digest_of_a_published_checkpoint_is_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    """Whether or not the published revision is known by name."""
    known = Published(sha256="0" * 64, revision=revision)
    monkeypatch.setitem(PUBLISHED, "owner/known", known)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: str(folder / "tokenizer")
    )
    for name in ("owner/known", "owner/known@abc"):
        source = locate(name, "tokenizer", timeout=5)
        if name == "owner/known" or revision == "abc":
            with pytest.raises(StartupError, match=r"has sha256 .* published is 000"):
                load_tokenizer(source)
        else:
            load_tokenizer(source)
    load_tokenizer(locate("owner/known@other", "tokenizer", timeout=5))


def test_loaded_weights_do_not_change_with_their_file(folder: Path) -> None:
    """A file that is replaced while the service runs must not change its forecasts."""
    model, _ = load_model(sources(folder)[0])
    before = model.head.proj_s1.weight.clone()
    target = folder / "model" / WEIGHTS
    target.write_bytes(bytes(target.stat().st_size))
    assert torch.equal(model.head.proj_s1.weight, before)


@pytest.mark.parametrize(
    ("hub_id", "context"), [("NeoQuasar/Kronos-mini", 2048), ("owner/other", 512)]
)
def test_context_is_the_published_one_or_512(hub_id: str, context: int) -> None:
    assert context_of(Source("model", hub_id, Path())) == context


@pytest.mark.process
def test_checking_a_checkpoint_does_not_import_sympy() -> None:
    """It would add 74 MB to every process."""
    script = """
import sys
from kronos_api.lifecycle import preload
preload()
assert "torch" in sys.modules
assert "sympy" not in sys.modules
"""
    run(sys.executable, "-c", script)
