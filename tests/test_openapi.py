"""The committed OpenAPI document and its TypeScript types are those of the service."""

from __future__ import annotations

import difflib
import os
import shutil

import pytest

from scripts import openapi


def test_document_is_that_of_the_service() -> None:
    committed, made = openapi.DOCUMENT.read_text("utf-8"), openapi.document()
    difference = difflib.unified_diff(committed.splitlines(), made.splitlines(), lineterm="", n=0)
    message = "docs/openapi.json is stale: run .venv/bin/python scripts/openapi.py and commit\n"
    assert committed == made, message + "\n".join(list(difference)[:20])


@pytest.mark.process
@pytest.mark.skipif(shutil.which("npx") is None, reason="no npx here (Debian: nodejs, npm)")
@pytest.mark.skipif(
    os.environ.get("CI") != "true", reason="installs a generator from npm: CI=true only"
)
def test_types_are_those_of_the_document() -> None:
    message = "the TypeScript types are stale: run .venv/bin/python scripts/openapi.py and commit"
    assert openapi.TYPES.read_text("utf-8") == openapi.types(openapi.DOCUMENT), message
