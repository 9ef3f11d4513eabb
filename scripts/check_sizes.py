"""Lines of the package's files and functions: at most 250 and 50, docstrings included.

A longer one has its reason in `EXCEPTIONS`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
MOST_OF_A_FILE: Final = 250
MOST_OF_A_FUNCTION: Final = 50

EXCEPTIONS: Final = {
    "kronos_api/cli/predict.py:predict": "typer takes the options of a command from its signature",
    "kronos_api/forecaster.py:forecast": "the public method documents each of its options",
}


def sizes(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines and limit of a file and of each function in it."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
    yield name, len(text.splitlines()), MOST_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1, MOST_OF_A_FUNCTION


def main() -> int:
    """Print what is too long, and exceptions that are not needed; 1 if there are any."""
    long = {
        name: f"{name}: {lines} lines, at most {most} allowed"
        for path in sorted((ROOT / "kronos_api").rglob("*.py"))
        for name, lines, most in sizes(path)
        if lines > most
    }
    found = [line for name, line in long.items() if name not in EXCEPTIONS]
    found += [f"{name}: needless exception" for name in sorted(EXCEPTIONS.keys() - long.keys())]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
