"""Names of checkpoints: bundled, a folder, or a hub id with its pinned revision."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kronos_api.checkpoints.hub import BUNDLED, locate, locate_both
from kronos_api.checkpoints.registry import PUBLISHED
from kronos_api.errors import StartupError


def test_bundled_checkpoint_is_the_default() -> None:
    source = locate(None, "model", timeout=1)
    assert source.demo
    assert source.id == "kronos-demo"
    assert source.folder.is_dir()


@pytest.mark.parametrize("name", ["nonsense", "a/b/c"])
def test_name_that_is_neither_a_folder_nor_a_hub_id(name: str) -> None:
    with pytest.raises(StartupError, match="neither a folder nor a hub id"):
        locate(name, "model", timeout=1)


@pytest.mark.parametrize("form", ["{}", "~/model"])
def test_folder_is_used_as_it_is(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    name = form.format(tmp_path / "model")
    source = locate(name, "model", timeout=1)
    assert (source.folder, source.id, source.demo) == (tmp_path / "model", name, False)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "~/nowhere"])
def test_missing_folder_is_an_error(name: str) -> None:
    with pytest.raises(StartupError, match="does not exist"):
        locate(name, "model", timeout=1)


def test_hub_ids_are_fetched_at_their_pinned_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot(
        name: str, *, revision: str | None, local_dir: Path | None, allow_patterns: list[str]
    ) -> str:
        assert local_dir is None
        asked.append((name, revision))
        assert set(allow_patterns) == {"config.json", "model.safetensors"}
        return str(tmp_path / "commit")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    known = PUBLISHED["NeoQuasar/Kronos-small"].revision
    assert locate("NeoQuasar/Kronos-small", "model", timeout=5).revision == known
    assert locate("NeoQuasar/Kronos-small@v2", "model", timeout=5).revision == "v2"
    assert locate("owner/other", "model", timeout=5).revision == "commit"
    assert asked == [
        ("NeoQuasar/Kronos-small", known),
        ("NeoQuasar/Kronos-small", "v2"),
        ("owner/other", None),
    ]


def test_hub_that_fails_or_never_responds_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> str:
        release.wait()
        return ""

    def fail(*_: object, **__: object) -> str:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", hang)
    with pytest.raises(StartupError, match=r"could not be fetched from the hub in 0\.1 s"):
        locate("owner/name", "model", timeout=0.1)
    release.set()
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(StartupError, match=r"no route to host$"):
        locate("owner/name", "model", timeout=5)


def test_both_lie_in_one_folder_or_are_bundled() -> None:
    for name in (None, str(BUNDLED)):
        model, tokenizer = locate_both(name, None, timeout=1)
        assert (model.folder, tokenizer.folder) == (BUNDLED / "model", BUNDLED / "tokenizer")


@pytest.mark.parametrize("name", ["~no-such-user/model", "a" * 5000])
def test_name_that_cannot_be_looked_up_is_an_error(name: str) -> None:
    with pytest.raises(StartupError):
        locate_both(name, None, timeout=1)


def test_published_model_brings_its_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: "/nowhere")
    model, tokenizer = locate_both("NeoQuasar/Kronos-mini", None, timeout=5)
    assert (model.id, tokenizer.id) == ("NeoQuasar/Kronos-mini", "NeoQuasar/Kronos-Tokenizer-2k")


def test_other_model_needs_the_name_of_its_tokenizer() -> None:
    with pytest.raises(StartupError, match="name its tokenizer too"):
        locate_both("owner/model", None, timeout=1)
