"""Links from the documentation to code lead to the class or function that they name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
LINK = re.compile(r"\[`([\w.]+)(?:\(\))?`\]\(([^)\s]+\.py)\)")
LINKS = [
    pytest.param(page.parent / target, name, id=f"{page.name}-{name}")
    for page in PAGES
    for name, target in LINK.findall(page.read_text("utf-8"))
]


def names(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What `body` defines: each name with the body of its class or function."""
    found: dict[str, list[ast.stmt]] = {}
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found[node.name] = node.body
            case ast.Assign(targets=targets):
                found |= {target.id: [] for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = []
    return found


@pytest.mark.parametrize(("path", "name"), LINKS)
def test_linked_code_exists(path: Path, name: str) -> None:
    assert path.is_file()
    body = ast.parse(path.read_text("utf-8")).body
    for part in name.split("."):
        defined = names(body)
        assert part in defined, f"{path.name} does not define {name}"
        body = defined[part]
