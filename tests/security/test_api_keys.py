"""The file of API keys: its lines, and how it is read again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kronos_api.errors import InsufficientScope, StartupError, Unauthenticated
from kronos_api.security.api_keys import (
    MOST_KEYS,
    REREAD_SECONDS,
    ApiKeys,
    new_key,
    parse_keys,
)

DIGEST = "sha256:" + "0" * 64


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_new_key_is_random_and_its_line_has_only_its_digest() -> None:
    key, made = new_key("shop", ["predict", "metrics"])
    assert made.line() == f"shop metrics,predict sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    assert parse_keys(made.line()) == (made,)
    assert key not in made.line()
    assert new_key("shop", ["predict"])[0] != key
    assert len(key) > 43  # 32 bytes


def test_comments_and_empty_lines_are_skipped() -> None:
    (key,) = parse_keys(f"# callers\n\n  shop predict {DIGEST}  # since March\n")
    assert (key.name, sorted(key.scopes)) == ("shop", ["predict"])


@pytest.mark.parametrize(
    "line",
    [
        "shop predict kronos_thisisthekeyitself",
        f"shop {DIGEST}",
        f"shop admin {DIGEST}",
        f"shop predict,admin {DIGEST}",
        f"two words predict {DIGEST}",
        f"shop predict {DIGEST}0",
        f"shop predict {DIGEST.upper()}",
        f"key:shop predict {DIGEST}",
        f"{'x' * 64} predict {DIGEST}",
    ],
)
def test_a_bad_line_is_named_by_its_number_and_not_repeated(line: str) -> None:
    with pytest.raises(StartupError, match=r"KRONOS_API_KEYS_FILE: line 2 must be") as raised:
        parse_keys(f"shop predict {DIGEST}\n{line}\n")
    assert "thisisthekeyitself" not in str(raised.value)


def test_the_number_of_keys_is_bounded() -> None:
    with pytest.raises(StartupError, match="at most 1000"):
        parse_keys(f"shop predict {DIGEST}\n" * (MOST_KEYS + 1))


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"#" * 300_000])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match="KRONOS_API_KEYS_FILE"):
        ApiKeys(file)


async def test_keys_are_added_and_removed_without_a_restart(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys", Clock()
    (old, old_line), (new, new_line) = (new_key("shop", ["predict"]) for _ in range(2))
    file.write_text(old_line.line())
    keys = ApiKeys(file, now=clock)
    caller = await keys.caller(old, "predict")
    assert (caller.label, caller.key, caller.container) == ("shop", "key:shop", None)
    with pytest.raises(Unauthenticated):
        await keys.caller(new, "predict")

    # While callers change from one to the other, both are valid, and one caller.
    replaced = tmp_path / "next"
    replaced.write_text(f"{old_line.line()}\n{new_line.line()}\n")
    replaced.rename(file)
    clock.now += REREAD_SECONDS
    assert await keys.caller(old, "predict") == await keys.caller(new, "predict")

    file.write_text(new_line.line())
    clock.now += REREAD_SECONDS
    with pytest.raises(Unauthenticated, match="kronos-api key new") as raised:
        await keys.caller(old, "predict")
    assert old not in str(raised.value)
    assert keys.names == ("shop",)


@pytest.mark.parametrize("damage", ["removed", "damaged"])
async def test_the_last_keys_hold_while_the_file_is_unreadable(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, clock = tmp_path / "keys", Clock()
    key, line = new_key("shop", ["predict"])
    file.write_text(line.line())
    keys = ApiKeys(file, now=clock)
    if damage == "removed":
        file.unlink()
    else:
        file.write_text(f"{line.line()}\nshop pre")
    clock.now += REREAD_SECONDS
    assert (await keys.caller(key, "predict")).label == "shop"
    assert "api_keys_unreadable" in capsys.readouterr().out

    file.write_text("# none\n")
    clock.now += REREAD_SECONDS
    with pytest.raises(Unauthenticated):
        await keys.caller(key, "predict")


async def test_a_missing_scope_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    key, line = new_key("prometheus", ["metrics"])
    file.write_text(line.line())
    with pytest.raises(InsufficientScope, match=r"'prometheus' has the scopes metrics; .* predict"):
        await ApiKeys(file).caller(key, "predict")


@pytest.mark.parametrize("key", ["", "x" * 100_000, "schlüssel", "\udcff", "0" * 64])
async def test_other_texts_are_no_keys(tmp_path: Path, key: str) -> None:
    file = tmp_path / "keys"
    file.write_text(new_key("shop", ["predict"])[1].line())
    with pytest.raises(Unauthenticated):
        await ApiKeys(file).caller(key, "predict")
