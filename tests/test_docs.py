"""Links from the documentation to code lead to what they name, and the pages fit together."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scripts import docs_pages

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
LINK = re.compile(r"\[`([\w.]+)(?:\(\))?`\]\(([^)\s]+\.py)\)")
LINKS = [
    pytest.param(page.parent / target, name, id=f"{page.name}-{name}")
    for page in PAGES
    for name, target in LINK.findall(page.read_text("utf-8"))
    if name != Path(target).name
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


def test_pages_of_the_site_fit_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs_pages, "PAGES", tmp_path / "pages")
    assert docs_pages.main() == 0, capsys.readouterr().out


def test_decisions_are_listed() -> None:
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs/adr/README.md").read_text("utf-8"))
    assert listed == sorted(path.name for path in (ROOT / "docs/adr").glob("0*.md"))
