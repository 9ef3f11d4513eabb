"""The playground over HTTP: the page, its files, and the reader of candles."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from kronos_api.routes import playground
from tests.middleware.test_caller_identity import UNLISTED, calling
from tests.web import SINGLE, serving

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = (ROOT / "examples" / "candles.csv").read_bytes()
READ = "/playground/read"
CSV = {"Content-Type": "text/csv"}
ROWS = [
    f"{day:02d}.01.2025;{100 + day},5;{102 + day},0;99,0;{101 + day},25" for day in range(6, 11)
]
GERMAN = "\n".join(["Datum;Eröffnung;Hoch;Tief;Schluss", *reversed(ROWS)]).encode("cp1252")


async def read(client: httpx.AsyncClient, content: bytes, **options: str) -> httpx.Response:
    return await client.post(READ, content=content, params=options, headers=CSV)


async def refused(client: httpx.AsyncClient, content: bytes, **options: str) -> str:
    response = await read(client, content, **options)
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "INVALID_INPUT")
    return str(error["message"])


async def test_the_page_is_off_by_default_and_says_how_to_turn_it_on() -> None:
    async with serving() as client:
        response = await client.get("/playground")
        assert response.status_code == 404
        assert "KRONOS_PLAYGROUND=true" in response.json()["error"]["message"]
        assert (await read(client, SAMPLE)).status_code == 404


async def test_the_page_loads_its_files_from_this_service_alone() -> None:
    async with serving(playground=True, app_name="<Ours>") as client:
        page = await client.get("/playground")
        assert page.status_code == 200
        assert "<h1>&lt;Ours&gt;</h1>" in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert not re.search(r"https?:|\*|unsafe-eval", policy)
        # Relative, so that it works below a prefix.
        assert not re.search(r"(?:src|href)=[\"']?(?:[a-z]+:)?/", page.text)
        loaded = re.findall(r"(?:src|href)=\"(playground/[^\"]+)\"", page.text)
        modules = [path.name for path in playground.FOLDER.glob("*.js")]
        for path in [*loaded, *(f"playground/{name}" for name in modules)]:
            assert (await client.get(f"/{path}")).status_code == 200, path
        charts = next(path for path in loaded if "plotly" in path)
        assert "immutable" in (await client.get(f"/{charts}")).headers["Cache-Control"]
        sample = await client.get("/playground/sample.csv")
        assert sample.content == SAMPLE


async def test_without_plotly_the_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(playground, "installed", lambda *_: None)
    async with serving(playground=True) as client:
        page = await client.get("/playground")
        assert page.status_code == 501
        assert "pip install 'kronos-api[playground]'" in page.text


async def test_a_file_becomes_the_columns_of_a_request() -> None:
    async with serving(playground=True) as client:
        found = (await read(client, GERMAN, name="Börse.csv")).json()
        assert found["timestamps"] == [f"2025-01-{day:02d}" for day in range(6, 11)]
        assert found["candles"]["open"] == [106.5, 107.5, 108.5, 109.5, 110.5]
        assert found["freq"] == "1D"
        assert "decimal comma" in found["understood"]
        assert "newest first turned round" in found["understood"]
        request = {"candles": found["candles"], "timestamps": found["timestamps"], "horizon": 2}
        assert (await client.post(SINGLE, json=request)).status_code == 200


async def test_the_last_candles_that_a_request_holds_are_used() -> None:
    lines = [f"{1_700_000_000 + 900 * n},{100 + n % 7},110,90,{101 + n % 5},5" for n in range(3000)]
    content = "\n".join(["time,open,high,low,close,volume", *lines]).encode()
    async with serving(playground=True) as client:
        found = (await read(client, gzip.compress(content))).json()
    assert len(found["timestamps"]) == len(found["candles"]["volume"]) == 2048
    assert "the last 2048 used" in found["understood"]
    assert found["freq"] == "15min"


async def test_options_say_how_the_file_is_read() -> None:
    content = b"When|Open|High|Low|Last\n03/04/2025|1|2|1|1\n04/04/2025|1|2|1|2\n"
    async with serving(playground=True) as client:
        message = await refused(client, content, name="a.csv")
        assert message.startswith("a.csv: has dates such as 04/04/2025")
        assert "--time-format" in message
        options = {"time_format": "%d/%m/%Y", "sep": "|", "columns": "close=Last"}
        found = (await read(client, content, **options)).json()
        assert found["timestamps"] == ["2025-04-03", "2025-04-04"]
        assert found["freq"] is None
        assert "freq" in found["notes"][0]
        assert "--decimal" in await refused(client, content, decimal="x")


async def test_a_refusal_names_file_line_and_text() -> None:
    content = b"date,open,high,low,close\n2025-01-01,1,2,1,1\n2025-01-02,1,2,1,-5\n"
    async with serving(playground=True) as client:
        message = await refused(client, content, name="bad.csv")
        assert message.startswith("bad.csv: line 3: close must be greater than 0; found '-5'")
        assert (await refused(client, b"")).startswith("the file: is empty")


async def test_highs_off_by_a_tick_are_repaired_if_asked() -> None:
    content = b"date,open,high,low,close\n2025-01-01,100,99.99,98,99\n2025-01-02,99,100,98,99\n"
    async with serving(playground=True) as client:
        assert "--repair-input" in await refused(client, content)
        found = (await read(client, content, repair_input="true")).json()
        assert found["notes"][0].startswith("1 ")


async def test_what_a_file_takes_of_memory_is_bounded() -> None:
    async with serving(playground=True, max_request_size_mb=1 / 64) as client:
        assert (await read(client, b"x" * 20_000)).status_code == 413
        packed = gzip.compress(b"date,open,high,low,close\n" + b"2025-01-01,1,2,1,1\n" * 2000)
        assert len(packed) < 2**14
        assert "is larger than" in await refused(client, packed)
        assert "save it as CSV" in await refused(client, b"PAR1 and more")


@pytest.mark.parametrize("kind", ["text/plain", "application/json", None])
async def test_types_that_any_page_can_send_are_refused(kind: str | None) -> None:
    async with serving(playground=True) as client:
        del client.headers["Content-Type"]
        headers = {} if kind is None else {"Content-Type": kind}
        response = await client.post(READ, content=SAMPLE, headers=headers)
    assert (response.status_code, "text/csv" in response.text) == (415, True)


async def test_pages_of_other_origins_cannot_read_files_even_if_they_may_forecast() -> None:
    async with serving(playground=True, cors_origins="*") as client:
        for origin, status in (("https://app.example", 403), ("http://service", 200)):
            headers = CSV | {"Origin": origin}
            response = await client.post(READ, content=SAMPLE, headers=headers)
            assert response.status_code == status
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        assert (await client.options(READ, headers=preflight)).status_code == 403


async def test_every_part_of_it_refuses_unlisted_callers() -> None:
    async with calling(UNLISTED, playground=True) as client:
        for method, path in (("GET", "/playground"), ("GET", "/playground/app.js"), ("POST", READ)):
            response = await client.request(method, path, headers=CSV)
            assert response.status_code == 403, path


async def test_reading_counts_as_a_request_that_is_no_forecast() -> None:
    async with serving(playground=True, rate_limit_other_per_minute=2) as client:
        statuses = [(await read(client, SAMPLE)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
