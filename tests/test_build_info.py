"""Version and commit: from the image, else from git, else unknown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kronos_api import __version__, build_info
from kronos_api.build_info import Build, commit_of, this_build


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    commit_of.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout of one commit."""
    (tmp_path / "file").write_text("one", "utf-8")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init", "-q"), ("add", "file"), (*identity, "commit", "-q", "-m", "one")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def head(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_of_an_image_is_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_BUILD_COMMIT", "abc")
    assert this_build() == Build(__version__, "abc")


def test_commit_of_a_checkout_is_that_of_git(
    monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    monkeypatch.setattr(build_info, "SOURCE", checkout)
    assert this_build().commit == head(checkout)
    commit_of.cache_clear()
    (checkout / "file").write_text("two", "utf-8")
    assert this_build().commit == f"{head(checkout)}-dirty"


def test_folder_within_another_checkout_has_no_commit(checkout: Path) -> None:
    (checkout / "site-packages").mkdir()
    assert commit_of(checkout / "site-packages") == "unknown"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit_of(checkout) == "unknown"


def test_checkout_that_git_refuses_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n", "utf-8")
    assert commit_of(tmp_path) == "unknown"
