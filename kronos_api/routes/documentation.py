"""The OpenAPI document and the pages that show it, without a request to another host."""

from __future__ import annotations

from html import escape
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from kronos_api.ratelimit.other_routes import Limited
from kronos_api.routes.assets import PACKAGE, Asset, asset, installed, page
from kronos_api.routes.reference import render

OPENAPI: Final = "/openapi.json"
FOLDER: Final = PACKAGE / "assets" / "docs"
SWAGGER: Final = ("swagger-ui-bundle.js", "swagger-ui.css")
PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css{css}">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js{bundle}"></script>
<script src="docs/start.js"></script>
</html>
"""


def router(app_name: str, limited: Limited) -> APIRouter:
    """`/openapi.json`, `/docs`, `/redoc` and the files that these load.

    `/docs` is Swagger UI, whose files the package fastapi-swagger brings; where it is missing,
    `/docs` is `/redoc`: a page of our own, because no Python package brings the files of ReDoc.
    """
    routes = APIRouter(include_in_schema=False)
    swagger = _swagger()
    files = {"/docs/reference.css": asset(FOLDER / "reference.css")}
    if swagger:
        files |= {f"/docs/{name}": one for name, one in swagger.items()}
        files["/docs/start.js"] = asset(FOLDER / "start.js")

    @routes.get(OPENAPI)
    @limited
    async def openapi(request: Request) -> JSONResponse:
        """The OpenAPI document of this application."""
        app: FastAPI = request.app
        document = app.openapi()
        if root := str(request.scope.get("root_path", "")).rstrip("/"):
            document = document | {"servers": [{"url": root}]}
        return JSONResponse(document)

    @routes.get("/docs")
    @limited
    async def docs(request: Request) -> HTMLResponse:
        """Swagger UI, or the reference where it is not installed."""
        if not swagger:
            return _reference(request.app)
        bundle, css = (swagger[name].version for name in SWAGGER)
        return page(PAGE.format(title=escape(app_name), bundle=bundle, css=css))

    @routes.get("/redoc")
    @limited
    async def redoc(request: Request) -> HTMLResponse:
        """The reference: the whole document as one page without scripts."""
        return _reference(request.app)

    @limited
    async def file(request: Request) -> Response:
        """A file of these pages."""
        return await files[request.scope["route"].path].respond(request)

    for path in files:
        routes.add_api_route(path, file)
    return routes


def _swagger() -> dict[str, Asset]:
    """The files of Swagger UI by name; empty where one is missing."""
    paths = {name: installed("fastapi_swagger", "resources", name) for name in SWAGGER}
    found = {name: asset(path) for name, path in paths.items() if path is not None}
    return found if len(found) == len(SWAGGER) else {}


def _reference(app: FastAPI) -> HTMLResponse:
    return page(render(app.openapi(), tryable=bool(_swagger())))
