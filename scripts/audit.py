"""Print known vulnerabilities of the packages on standard input, one name==version a line.

scripts/build runs this in a container of its own, where it installs pip-audit from /audit.txt. Exit
status: 0 none, 1 at least one, 2 the index could not be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def say(line: str) -> None:
    """Print one line of the report."""
    print(f"audit  {line}", flush=True)


def audit(listed: str) -> list[dict[str, Any]] | None:
    """The result of pip-audit for each package; None if it could not ask the index."""
    Path("/tmp/packages").write_text(listed)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    here = ["--root-user-action", "ignore", "--require-hashes", "--requirement", "/audit.txt"]
    options = ["--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json"]
    command = [sys.executable, "-m", "pip_audit", *options, "--requirement", "/tmp/packages"]
    try:
        subprocess.run([*pip, *here], check=True, capture_output=True, timeout=60)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.SubprocessError, ValueError, KeyError):
        return None


def main() -> int:
    """Print the known vulnerabilities and return the exit status."""
    found_for = audit(sys.stdin.read())
    known = [package for package in found_for or () if "skip_reason" not in package]
    if found_for is None or not known:
        say("not done: the package index has no data on vulnerabilities")
        return 2
    for package in known:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no release yet"
            say(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
    if unknown := [package["name"] for package in found_for if package not in known]:
        say(f"the index does not know {', '.join(unknown)}")
    count = sum(len(package["vulns"]) for package in known)
    say(f"{len(known)} packages, {count or 'no'} known vulnerabilities")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
