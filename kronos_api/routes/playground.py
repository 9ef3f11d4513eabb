"""The page to try forecasts, its files, and the reader of the candles that it is given."""

from __future__ import annotations

import asyncio
from html import escape
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.datastructures import QueryParams
from starlette.responses import Response

from kronos_api.errors import InvalidInput, UnsupportedMediaType
from kronos_api.files import ReadOptions, read_candles
from kronos_api.files.history import check_file
from kronos_api.files.options import parse_options
from kronos_api.limits import MAX_HISTORY
from kronos_api.ratelimit.other_routes import Limited
from kronos_api.routes.assets import PACKAGE, Asset, asset, installed, page
from kronos_api.timeseries import Frequency, infer_frequency
from kronos_api.violations import InvalidFields

PLAYGROUND: Final = "/playground"
READ: Final = f"{PLAYGROUND}/read"
FOLDER: Final = PACKAGE / "playground"
CHARTS: Final = ("plotly", "package_data", "plotly.min.js")
CSV: Final = "text/csv"
UNITS: Final = {"h": 3600, "min": 60}
_SHOWN: Final = 100
"""Characters of a name or a type that a message repeats."""
MISSING: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: playground</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="playground/style.css">
<main class="notice">
<h1>The playground needs the extra playground</h1>
<p>It draws its charts with Plotly, which is not installed. Install it where the service runs, and
start the service again:</p>
<pre>pip install 'kronos-api[playground]'</pre>
<p>In a checkout of the repository: <code>.venv/bin/pip install plotly fastapi-swagger</code>.
The API itself is described at <a href="docs">/docs</a>.</p>
</main>
</html>
"""


def router(app_name: str, limited: Limited, largest: int) -> APIRouter:
    """`/playground` and what it loads; `/playground/read` reads files of `largest` bytes."""
    routes = APIRouter(include_in_schema=False)
    files = {f"{PLAYGROUND}/{path.name}": asset(path) for path in _page_files()}
    if (charts := installed(*CHARTS)) is not None:
        files[f"{PLAYGROUND}/plotly.js"] = asset(charts)
    html, status = _page(app_name, files.get(f"{PLAYGROUND}/plotly.js"))
    # Reading holds the interpreter: one file at a time.
    reading = asyncio.Semaphore(1)

    @routes.get(PLAYGROUND)
    @limited
    async def playground(request: Request) -> Response:
        """The page; what to install where Plotly is missing."""
        del request
        return page(html, status, inline_styles=True)  # Plotly adds two

    @routes.post(READ)
    @limited
    async def read(request: Request) -> Response:
        """The candles of a file in a body of type text/csv, ready for a forecast."""
        _check_type(request)
        body = await request.body()
        async with reading:
            content = await asyncio.to_thread(_read, body, request.query_params, largest)
        return Response(content, media_type="application/json")

    @limited
    async def file(request: Request) -> Response:
        """A file of the page."""
        return await files[request.scope["route"].path].respond(request)

    for path in files:
        routes.add_api_route(path, file)
    return routes


def _page_files() -> list[Path]:
    return [path for path in sorted(FOLDER.iterdir()) if path.suffix in (".css", ".csv", ".js")]


def _page(app_name: str, charts: Asset | None) -> tuple[str, int]:
    """The HTML of the page, and its status."""
    title = escape(app_name)
    if charts is None:
        return MISSING.format(title=title), 501
    html = (FOLDER / "index.html").read_text("utf-8")
    return html.replace("{title}", title).replace("{charts}", charts.version), 200


def _check_type(request: Request) -> None:
    """Raise `UnsupportedMediaType` for a body that a page of another origin could send."""
    found = request.headers.get("content-type", "")
    if found.partition(";")[0].strip().lower() != CSV:
        raise UnsupportedMediaType(
            f"Content-Type is {found[:_SHOWN]!a}; send Content-Type: {CSV}, whatever the encoding "
            "and separator of the file."
        )


def _read(body: bytes, given: QueryParams, largest: int) -> bytes:
    """The file as the columns of a request, as JSON; raises `InvalidInput` that names the file."""
    name = given.get("name", "the file")[:_SHOWN]
    try:
        repair = given.get("repair_input") == "true"
        return orjson.dumps(_candles(body, _options(given), repair, largest))
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from None


def _options(given: QueryParams) -> ReadOptions:
    return parse_options(
        given.get("columns", ""),
        given.get("sep") or None,
        given.get("decimal") or None,
        given.get("time_format") or None,
    )


def _candles(body: bytes, options: ReadOptions, repair: bool, largest: int) -> dict[str, Any]:
    file = read_candles(body, options, MAX_HISTORY, largest=largest, bounded=True)
    history = check_file(file, repair=repair)
    notes = []
    if history.repaired:
        notes.append(f"{history.repaired} highs and lows are moved to open and close")
    freq = None
    try:
        freq = _short(infer_frequency(history.timestamps))
    except InvalidFields as error:
        notes.append(f"{error}")
    return {
        "candles": {name: column.tolist() for name, column in file.columns.items()},
        "timestamps": file.timestamps,
        "freq": freq,
        "understood": file.understood,
        "notes": notes,
    }


def _short(freq: Frequency) -> str:
    """The step as people write it: 15min, not 900s."""
    if freq.step is not None and freq.intraday:
        for unit, seconds in UNITS.items():
            if freq.step.total_seconds() % seconds == 0:
                return f"{int(freq.step.total_seconds()) // seconds}{unit}"
    return freq.text
