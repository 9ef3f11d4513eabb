"""The slots of one directory. Two objects contend for them as two processes do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kronos_api.errors import StartupError
from kronos_api.telemetry.slots import RESERVED_BYTES, Slots


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_each_process_has_a_slot_with_reserved_files(tmp_path: Path) -> None:
    one, other = Slots(tmp_path), Slots(tmp_path)
    assert (one.own(), other.own(), one.own()) == (1, 2, 1)
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.db")} == {
        f"{kind}_{slot}.db": size for kind, size in RESERVED_BYTES.items() for slot in (1, 2)
    }
    assert one.used_bytes() > 0


def test_gauges_of_a_held_slot_stay(tmp_path: Path) -> None:
    one, other = Slots(tmp_path), Slots(tmp_path)
    one.own()
    other.drop_dead_gauges()
    assert "gauge_livesum_1.db" in names(tmp_path)


def test_gauges_of_a_free_slot_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "slot-1").touch()
    (tmp_path / "gauge_livesum_1.db").touch()
    (tmp_path / "counter_1.db").touch()
    Slots(tmp_path).drop_dead_gauges()
    assert names(tmp_path) == {"slot-1", "counter_1.db"}


def test_next_holder_continues_the_counts(tmp_path: Path) -> None:
    (tmp_path / "slot-1").touch()
    (tmp_path / "counter_1.db").write_bytes(b"counted")
    assert Slots(tmp_path).own() == 1
    assert (tmp_path / "counter_1.db").read_bytes() == b"counted"


def test_slot_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    slots = Slots(tmp_path / "file" / "directory")
    with pytest.raises(StartupError, match=r"cannot write metrics to .*directory: not a directory"):
        slots.own()


def test_removed_directory_is_restored_with_its_counts(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    slots = Slots(directory)
    assert slots.own() == 1
    assert not slots.restore()
    (directory / "counter_1.db").write_bytes(b"counted")
    shutil.rmtree(directory)
    assert slots.restore()
    assert not slots.restore()
    assert slots.own() == 2  # another one, so that the files are mapped again
    assert (directory / "counter_2.db").read_bytes() == b"counted"
    assert directory.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(directory)
    assert slots.restore()
    assert (directory / f"counter_{slots.own()}.db").read_bytes() == b"counted"


@pytest.mark.parametrize("removed", ["slot-1", "counter_1.db", "gauge_livesum_1.db"])
def test_one_removed_file_is_restored_and_none_is_duplicated(tmp_path: Path, removed: str) -> None:
    one, other = Slots(tmp_path), Slots(tmp_path)
    assert (one.own(), other.own()) == (1, 2)
    (tmp_path / removed).unlink()
    assert one.restore()
    assert not other.restore()
    assert (one.own(), other.own()) == (3, 2)
    assert {name for name in names(tmp_path) if name.endswith(".db")} == {
        f"{kind}_{slot}.db" for kind in RESERVED_BYTES for slot in (2, 3)
    }


def test_restoring_is_retried_until_it_succeeds(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    slots = Slots(directory)
    slots.own()
    shutil.rmtree(directory)
    directory.touch()
    for _ in range(2):
        with pytest.raises(StartupError, match="not a directory of this user"):
            slots.restore()
    directory.unlink()
    assert slots.restore()
