from __future__ import annotations

import subprocess
import sys

import pytest

from kronos_api.checkpoints.info import Part


@pytest.mark.parametrize(
    "module", ["kronos_api.checkpoints.info", "kronos_api.checkpoints.registry"]
)
def test_types_and_registry_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version_is_the_revision_or_the_start_of_the_digest() -> None:
    assert Part("a/b", "main", "0" * 64, 1).version == "a/b@main"
    assert Part("demo", None, "abcdef" * 10, 1).version == "demo@abcdefabcdef"
