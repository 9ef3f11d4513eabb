"""Compare requirements/*.txt with pyproject.toml, without a network.

Every requirement of the project and of the extras that a file locks must be met by exactly the
version pinned there, and so must every requirement that the installed packages declare among
themselves. PyTorch is pinned apart: only what it needs must be in the lock.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ("fast", "kubernetes", "mcp", "otel", "playground")
TEST = ("test", "arrow", "charts", *SERVICE)
EXTRAS = {
    "docs": ("docs",),
    "complete": SERVICE,
    "ray": ("ray",),
    "runtime": (),
    "test": TEST,
    "tools": ("load",),
    "train": (*TEST, "train"),
}
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """Package to version, as requirements/`name`.txt pins them."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {canonicalize_name(package): version for package, version in PIN.findall(text)}


def declared(extras: Iterable[str]) -> Iterator[Requirement]:
    """Requirements of the project and of `extras`, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in extras:
        yield from map(Requirement, project["optional-dependencies"][extra])
    yield from map(Requirement, project["dependencies"])


def installed_requirements(packages: Iterable[str]) -> Iterator[Requirement]:
    """Requirements that the installed ones of `packages` declare for this platform."""
    for package in packages:
        try:
            lines = distribution(package).requires or ()
        except PackageNotFoundError:  # for another platform
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield requirement


def violations(name: str) -> Iterator[str]:
    """One line for each requirement that requirements/`name`.txt does not meet."""
    locked = pins(name)
    if "torch" in locked:
        yield f"{name}.txt pins torch; its pin belongs in torch.txt"
    locked["torch"] = pins("torch")["torch"]
    for requirement in (*declared(EXTRAS[name]), *installed_requirements(locked)):
        version = locked.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"{name}.txt lacks {requirement}"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{name}.txt has {requirement.name} {version}, but needs {requirement}"


def main() -> int:
    """Print the violations; 1 if there are any."""
    found = [line for name in EXTRAS for line in violations(name)]
    for line in dict.fromkeys(found):
        print(line)
    if found:
        print("Run scripts/lock to update requirements/*.txt.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
