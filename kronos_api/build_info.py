"""The running build: the version of the package and the commit it was built from."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from kronos_api.version import __version__

VARIABLE: Final = "KRONOS_BUILD_COMMIT"
"""Environment variable with the commit; images set it from the build argument GIT_COMMIT."""
UNKNOWN: Final = "unknown"
SOURCE: Final = Path(__file__).parents[1]
GIT_TIMEOUT: Final = 5.0
"""Seconds that `git describe` may take; it runs once, at the start."""


@dataclass(frozen=True, slots=True)
class Build:
    """Version and commit.

    `commit` ends in `-dirty` if the tree has changes; it is "unknown" outside images and git.
    """

    version: str
    commit: str


def this_build() -> Build:
    """The running build."""
    return Build(__version__, os.environ.get(VARIABLE) or commit_of(SOURCE))


@cache
def commit_of(tree: Path) -> str:
    """The commit of a git checkout whose top is `tree`, shortened to 12 digits or more."""
    if not (tree / ".git").exists():  # an installed package, maybe in another checkout
        return UNKNOWN
    command = ("git", "-C", str(tree), "describe", "--always", "--abbrev=12", "--exclude=*")
    try:
        outcome = subprocess.run(
            (*command, "--dirty"),
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or a file system that stalls
        return UNKNOWN
    return outcome.stdout.strip() if outcome.returncode == 0 else UNKNOWN
