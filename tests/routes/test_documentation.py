"""The pages of the API: nothing comes from another host, and the examples answer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kronos_api.routes import documentation
from tests.web import BATCH, SINGLE, predictor_of, serving

OUTSIDE = re.compile(r"""(?:src|href)=["']?(?:[a-z]+:)?//""")


async def test_docs_are_swagger_ui_from_this_service() -> None:
    async with serving(app_name="<Ours>") as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "&lt;Ours&gt;" in page.text
        assert not OUTSIDE.search(page.text)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert not re.search(r"https?:|\*|unsafe-", policy)
        loaded = re.findall(r"(?:src|href)=\"(docs/[^\"]+)\"", page.text)
        assert len(loaded) == 3
        for path in loaded:
            assert (await client.get(f"/{path}")).status_code == 200


async def test_a_file_at_its_digest_is_kept_and_others_are_revalidated() -> None:
    async with serving() as client:
        page = await client.get("/docs")
        pinned = re.findall(r"docs/swagger-ui\.css\?v=\w+", page.text)[0]
        first = await client.get(f"/{pinned}")
        assert first.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        plain = await client.get("/docs/swagger-ui.css")
        assert plain.headers["Cache-Control"] == "no-cache"
        headers = {"If-None-Match": f'"other", {plain.headers["ETag"]}'}
        again = await client.get("/docs/swagger-ui.css", headers=headers)
        assert (again.status_code, again.content) == (304, b"")
        old = await client.get("/docs/swagger-ui.css?v=0123456789abcdef")
        assert old.headers["Cache-Control"] == "no-cache"


async def test_reference_has_every_operation_and_type_without_scripts() -> None:
    async with serving(app_name="Ours") as client:
        page = (await client.get("/redoc")).text
        document = (await client.get("/openapi.json")).json()
    for path in document["paths"]:
        assert f"{path}</h2>" in page
    for name in document["components"]["schemas"]:
        assert f'id="type-{name}"' in page
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page))
    assert "<script" not in page
    assert not OUTSIDE.search(page)


async def test_docs_are_the_reference_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "installed", lambda *_: None)
    async with serving() as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "pip install 'kronos-api[playground]'" in page.text
        assert SINGLE in page.text
        assert (await client.get("/docs/swagger-ui.css")).status_code == 404


async def test_every_request_example_answers() -> None:
    async with serving() as client:
        document = (await client.get("/openapi.json")).json()
        tried = 0
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
                for media in content.values():
                    for name, example in media["examples"].items():
                        response = await client.request(method, path, json=example["value"])
                        assert response.status_code == 200, (path, name, response.text)
                        tried += 1
    assert tried >= 5
    assert {SINGLE, BATCH} <= set(document["paths"])


def test_the_reference_escapes_what_it_shows() -> None:
    from kronos_api.app import create_app
    from kronos_api.config import Settings
    from kronos_api.routes.reference import render

    app = create_app(Settings(app_name="<b>&"), predictor=predictor_of())
    assert "<title>&lt;b&gt;&amp;</title>" in render(app.openapi(), tryable=True)
