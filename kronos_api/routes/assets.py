"""Files that the service's own pages load, and the headers of these pages."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

PACKAGE: Final = Path(__file__).resolve().parents[1]
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
YEAR: Final = 31_536_000
VERSION: Final = "v"
"""Query parameter with the digest: content that never changes at its URL."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self'{styles}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of pages: everything comes from this service, or not at all."""
HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page(html: str, status: int = 200, *, inline_styles: bool = False) -> HTMLResponse:
    """A page that loads nothing from outside, and runs no script that is not a file."""
    policy = POLICY.format(styles=" 'unsafe-inline'" if inline_styles else "")
    return HTMLResponse(html, status, headers=HEADERS | {"Content-Security-Policy": policy})


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, and the digest of its content."""

    path: Path
    digest: str

    @property
    def version(self) -> str:
        """The query under which a browser may keep the file for a year."""
        return f"?{VERSION}={self.digest}"

    async def respond(self, request: Request) -> Response:
        """The file; 304 if the browser has it."""
        tag = f'W/"{self.digest}"'
        pinned = request.query_params.get(VERSION) == self.digest
        headers = {
            "ETag": tag,
            "Cache-Control": f"public, max-age={YEAR}, immutable" if pinned else "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        known = request.headers.get("if-none-match", "").split(",")
        if tag in [one.strip() for one in known]:
            return Response(status_code=304, headers=headers)
        content = await asyncio.to_thread(self.path.read_bytes)
        return Response(content, headers=headers, media_type=TYPES[self.path.suffix])


@cache
def asset(path: Path) -> Asset:
    """The asset in the file `path`."""
    return Asset(path, hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def installed(package: str, *parts: str) -> Path | None:
    """A file of an installed package, which is not imported; None where it is missing."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, *parts)
        if path.is_file():
            return path
    return None
