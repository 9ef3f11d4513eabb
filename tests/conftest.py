"""What holds for all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from tests.oracle import MakeOracle, Oracle

# Few examples, the same in every run, and no limit on the time of one: a run repeats the one
# before. `--hypothesis-profile thorough` looks for new examples.
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that depend on other processes once more if they fail; quick tests never.

    Slow tests come first: the others then fill the processes evenly.
    """
    for item in items:
        if item.get_closest_marker("process") or item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The scheduler of `--dist loadfile`; None for xdist's own of another mode."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.distribution import Scheduling

    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that passed only when they were run again, and show why they failed before."""
    stats = terminalreporter.stats
    failed = {report.nodeid for kind in ("failed", "error") for report in stats.get(kind, ())}
    reruns = {report.nodeid: report for report in stats.get("rerun", ())}
    flaky = sorted(reruns.keys() - failed)
    for name in flaky:
        terminalreporter.write_sep("_", f"{name}, first run")
        terminalreporter.write_line(reruns[name].longreprtext)
    for name in flaky:
        terminalreporter.write_line(f"flaky: {name}")


@pytest.fixture(autouse=True)
def untouched_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No setting comes from outside, and how a test configures logging ends with it.

    Each test counts its calls by itself.
    """
    for name in os.environ:
        if name.upper().startswith(("KRONOS_", "GUNICORN_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("kronos_api.config.env_file.ENV_FILE", Path("/nonexistent/.env"))
    for name in ("no_proxy", "NO_PROXY"):  # what tests ask is on this machine
        monkeypatch.setenv(name, "127.0.0.1,localhost,::1", prepend=",")
    folder = tmp_path_factory.mktemp("rate-limit")
    monkeypatch.setattr("kronos_api.ratelimit.host_store.default_folder", lambda: folder)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> MakeOracle:
    """Oracle of a shape, by name."""

    @cache
    def make(name: str) -> Oracle:
        from tests.oracle import make_oracle  # torch, and the reference implementation

        return make_oracle(name, tmp_path_factory.mktemp(name))

    return make
