"""Gather the pages of the documentation site in build/docs, with links that hold there.

The repository's links are relative to its files. A link to another page stays one; a link to any
other file becomes a link to the repository at GITHUB_SERVER_URL/GITHUB_REPOSITORY, or plain text
where these are not set. Exit status 1, with a line for each, if a link leads nowhere or the
navigation of zensical.toml lacks a page.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "docs"
TOP_LEVEL = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"} | {
    "CHANGELOG.md": "changelog.md"
}
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?\[[^\]]*\])\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def page_of(path: Path) -> Path | None:
    """Where `path` of the repository is among the pages; None if it is not one of them."""
    if path.is_dir() and (path / "README.md").is_file():
        path = path / "README.md"
    name = path.relative_to(ROOT).as_posix()
    if name in TOP_LEVEL:
        return PAGES / TOP_LEVEL[name]
    if path.is_file() and path.is_relative_to(ROOT / "docs"):
        return PAGES / path.relative_to(ROOT / "docs")
    return None


class Links:
    """Rewrites the links of one page and collects those that lead nowhere."""

    def __init__(self, source: Path, page: Path) -> None:
        self.source = source
        self.page = page
        self.broken: list[str] = []

    def rewrite(self, text: str) -> str:
        """`text` with links that hold among the pages; code blocks stay as they are."""
        parts, end = [], 0
        for block in CODE_BLOCK.finditer(text):
            parts += [LINK.sub(self._rewrite, text[end : block.start()]), block[0]]
            end = block.end()
        return "".join([*parts, LINK.sub(self._rewrite, text[end:])])

    def _rewrite(self, link: re.Match[str]) -> str:
        label, target, anchor = link.groups(default="")
        path = (self.source.parent / target).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            self.broken.append(f"{self.source.relative_to(ROOT)}: {target} does not exist")
            return link[0]
        if page := page_of(path):
            return f"{label}({os.path.relpath(page, self.page.parent)}{anchor})"
        if repository := os.environ.get("GITHUB_REPOSITORY"):
            server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
            return f"{label}({server}/{repository}/blob/main/{path.relative_to(ROOT)}{anchor})"
        return label[1:-1]


def navigation(entries: object) -> Iterator[str]:
    """The pages that the navigation of zensical.toml names."""
    if isinstance(entries, str):
        yield entries
    elif isinstance(entries, list):
        for entry in entries:
            yield from navigation(entry)
    elif isinstance(entries, dict):
        yield from navigation(list(entries.values()))


def main() -> int:
    """Write the pages, print what is wrong with them, and return the exit status."""
    shutil.rmtree(PAGES, ignore_errors=True)
    wrong = []
    for source in [*map(ROOT.joinpath, TOP_LEVEL), *(ROOT / "docs").rglob("*")]:
        page = page_of(source) if source.is_file() else None
        if page is None:
            continue
        page.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix != ".md":
            shutil.copyfile(source, page)
            continue
        links = Links(source, page)
        page.write_text(links.rewrite(source.read_text("utf-8")), "utf-8")
        wrong += links.broken
    config = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))
    listed = set(navigation(config["project"]["nav"]))
    records = {f"adr/{path.name}" for path in (PAGES / "adr").glob("0*.md")}
    pages = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md")} - records
    wrong += [f"zensical.toml: nav lacks {name}" for name in sorted(pages - listed)]
    wrong += [f"zensical.toml: nav has {name}, no such page" for name in sorted(listed - pages)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
