"""Orders of the operator as files."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from kronos_api import controls
from kronos_api.controls import BLOCKED, DRAIN, LOG_LEVEL, Controls, Orders, control_directory


@pytest.fixture
def given(tmp_path: Path) -> Controls:
    """A directory with one order of each kind."""
    made = Controls(tmp_path / "control")
    made.reset()
    made.write(DRAIN, "")
    made.write(LOG_LEVEL, "DEBUG")
    made.write(BLOCKED, "shop\n10.0.0.7\n")
    return made


ALL = Orders("DEBUG", drained=True, blocked=frozenset({"shop", "10.0.0.7"}))


def test_orders_are_read_and_withdrawn(given: Controls) -> None:
    assert Controls(given.directory).read() == ALL
    given.remove(DRAIN)
    given.remove(DRAIN)
    assert given.read().drained is False


def test_start_of_the_service_removes_the_orders(given: Controls) -> None:
    Controls(given.directory).reset()
    assert given.read() == Orders()


def test_removed_directory_leaves_the_last_orders_in_force(given: Controls) -> None:
    given.read()
    shutil.rmtree(given.directory)
    assert given.read() == ALL
    given.write(LOG_LEVEL, "ERROR")
    assert given.read() == Orders("ERROR")


def test_level_that_does_not_exist_is_ignored(given: Controls) -> None:
    given.write(LOG_LEVEL, "LOUD")
    assert given.read().log_level is None


def test_service_without_a_writable_directory_takes_no_orders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blocked = Controls(tmp_path / "file" / "control")
    blocked.reset()
    assert blocked.read() == Orders()


def test_services_at_two_ports_have_their_own_orders(tmp_path: Path) -> None:
    assert control_directory(tmp_path, 8000) != control_directory(tmp_path, 8001)


async def test_changes_are_applied_once(given: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "EVERY", 0)
    applied: list[Orders] = []
    following = asyncio.create_task(given.follow(applied.append))
    while len(applied) < 1:
        await asyncio.sleep(0)
    given.remove(DRAIN)
    while len(applied) < 2:
        await asyncio.sleep(0)
    following.cancel()
    assert [one.drained for one in applied] == [True, False]
