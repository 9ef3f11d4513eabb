"""The slots of one folder. Two objects contend for them as two processes do."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronos_api.errors import StartupError
from kronos_api.telemetry.slots import ROOM, Slots


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_everyone_has_a_slot_with_room(tmp_path: Path) -> None:
    one, other = Slots(tmp_path), Slots(tmp_path)
    assert (one.own(), other.own(), one.own()) == (1, 2, 1)
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.db")} == {
        f"{kind}_{slot}.db": size for kind, size in ROOM.items() for slot in (1, 2)
    }
    assert one.used_bytes() > 0


def test_what_is_held_is_not_cleared(tmp_path: Path) -> None:
    one, other = Slots(tmp_path), Slots(tmp_path)
    one.begin()
    other.clear()
    assert "gauge_livesum_1.db" in names(tmp_path)
    assert other.deaths() == 0


def test_what_nobody_holds_is_cleared_once(tmp_path: Path) -> None:
    (tmp_path / "slot-1").write_text("serving")
    (tmp_path / "gauge_livesum_1.db").touch()
    (tmp_path / "counter_1.db").touch()
    slots = Slots(tmp_path)
    slots.clear()
    slots.clear()
    assert names(tmp_path) == {"slot-1", "counter_1.db", "deaths"}
    assert slots.deaths() == 1


def test_the_next_holder_finds_a_death_and_counts_on(tmp_path: Path) -> None:
    (tmp_path / "slot-1").write_text("serving")
    (tmp_path / "counter_1.db").write_bytes(b"counted")
    slots = Slots(tmp_path)
    assert slots.own() == 1
    assert (tmp_path / "counter_1.db").read_bytes() == b"counted"
    assert slots.deaths() == 1
    slots.end()
    assert (tmp_path / "slot-1").stat().st_size == 0


def test_a_slot_without_room_is_told_in_one_line(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "gone")
    with pytest.raises(StartupError, match=r"cannot keep metrics in .*gone: no such file"):
        slots.own()
