"""The slots of one folder. Two objects contend for them as two processes do."""

from __future__ import annotations

import shutil
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
    one.own()
    other.clear()
    assert "gauge_livesum_1.db" in names(tmp_path)


def test_what_nobody_holds_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "slot-1").touch()
    (tmp_path / "gauge_livesum_1.db").touch()
    (tmp_path / "counter_1.db").touch()
    Slots(tmp_path).clear()
    assert names(tmp_path) == {"slot-1", "counter_1.db"}


def test_the_next_holder_counts_on(tmp_path: Path) -> None:
    (tmp_path / "slot-1").touch()
    (tmp_path / "counter_1.db").write_bytes(b"counted")
    assert Slots(tmp_path).own() == 1
    assert (tmp_path / "counter_1.db").read_bytes() == b"counted"


def test_a_slot_without_room_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    slots = Slots(tmp_path / "file" / "folder")
    with pytest.raises(StartupError, match=r"cannot keep metrics in .*folder: not a directory"):
        slots.own()


def test_a_removed_folder_is_made_again_with_what_was_counted(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    slots = Slots(folder)
    assert slots.own() == 1
    assert not slots.mend()
    (folder / "counter_1.db").write_bytes(b"counted")
    shutil.rmtree(folder)
    assert slots.mend()
    assert not slots.mend()
    assert slots.own() == 2  # another one, so that the files are mapped again
    assert (folder / "counter_2.db").read_bytes() == b"counted"
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)
    assert slots.mend()
    assert (folder / f"counter_{slots.own()}.db").read_bytes() == b"counted"


@pytest.mark.parametrize("removed", ["slot-1", "counter_1.db", "gauge_livesum_1.db"])
def test_one_removed_file_is_made_again_and_none_is_there_twice(
    tmp_path: Path, removed: str
) -> None:
    one, other = Slots(tmp_path), Slots(tmp_path)
    assert (one.own(), other.own()) == (1, 2)
    (tmp_path / removed).unlink()
    assert one.mend()
    assert not other.mend()
    assert (one.own(), other.own()) == (3, 2)
    assert {name for name in names(tmp_path) if name.endswith(".db")} == {
        f"{kind}_{slot}.db" for kind in ROOM for slot in (2, 3)
    }


def test_a_folder_that_cannot_be_made_again_is_told_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    slots = Slots(folder)
    slots.own()
    shutil.rmtree(folder)
    folder.touch()
    for _ in range(2):
        with pytest.raises(StartupError, match="not a folder of this user"):
            slots.mend()
    folder.unlink()
    assert slots.mend()
