"""The word list finds words that the field has better ones for, where they are unambiguous."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import check_words


def hits(root: Path, name: str, text: str) -> list[str]:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return list(check_words.hits(path))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(check_words, "ROOT", tmp_path)
    return tmp_path


def test_hit_has_place_word_and_remedy(root: Path) -> None:
    found = hits(root, "docs/page.md", "All is well.\nIt starts anew.\n")
    assert found == ["docs/page.md:2: anew: again, or a verb: refresh, rebuild"]


def test_rule_applies_to_its_files_alone(root: Path) -> None:
    assert hits(root, "kronos_api/engine/linear.py", "# one product\n")
    assert not hits(root, "kronos_api/middleware/envelope.py", "# one product\n")


def test_pages_about_old_names_are_exempt(root: Path) -> None:
    assert not hits(root, "CHANGELOG.md", "It starts anew.\n")


@pytest.mark.parametrize("rule", check_words.RULES)
def test_rules_are_valid(rule: check_words.Rule) -> None:
    re.compile(rule.pattern)
    assert not re.search(rule.pattern, rule.instead)
