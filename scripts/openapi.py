"""Write docs/openapi.json, and the TypeScript types of it where npm is installed.

    .venv/bin/python scripts/openapi.py

The types are those of openapi-typescript, in the version that tests/clients/package.json names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from kronos_api.app import create_app
from kronos_api.config import Settings

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "openapi.json"
TYPES: Final = ROOT / "clients" / "typescript" / "kronos-api.d.ts"
PACKAGES: Final = ROOT / "tests" / "clients" / "package.json"


def document() -> str:
    """The OpenAPI document of a service with the default settings, as JSON."""
    content = create_app(Settings()).openapi()
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def types(source: Path) -> str:
    """The TypeScript types of the document in `source`; needs npx and a registry of npm."""
    version = json.loads(PACKAGES.read_text("utf-8"))["dependencies"]["openapi-typescript"]
    command = ("npx", "--yes", f"openapi-typescript@{version}", source)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Write both files."""
    for name in [name for name in os.environ if name.startswith("KRONOS_")]:
        del os.environ[name]
    DOCUMENT.write_text(document(), "utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    if shutil.which("npx") is None:
        print(f"npx not found: {TYPES.relative_to(ROOT)} is as before; install nodejs and npm")
        return
    TYPES.write_text(types(DOCUMENT), "utf-8")
    print(f"wrote {TYPES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
