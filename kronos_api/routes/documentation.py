"""The OpenAPI document and the pages that show it."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse

from kronos_api.ratelimit.other_routes import Limited

OPENAPI = "/openapi.json"


def router(app_name: str, limited: Limited) -> APIRouter:
    """`/openapi.json`, `/docs` and `/redoc` of FastAPI, with our rate limit."""
    routes = APIRouter(include_in_schema=False)

    @routes.get(OPENAPI)
    @limited
    async def openapi(request: Request) -> JSONResponse:
        """The OpenAPI document of this application."""
        app: FastAPI = request.app
        document = app.openapi()
        if root := _root(request):
            document = document | {"servers": [{"url": root}]}
        return JSONResponse(document)

    @routes.get("/docs")
    @limited
    async def swagger(request: Request) -> HTMLResponse:
        """Swagger UI."""
        return get_swagger_ui_html(openapi_url=_root(request) + OPENAPI, title=app_name)

    @routes.get("/redoc")
    @limited
    async def redoc(request: Request) -> HTMLResponse:
        """ReDoc."""
        return get_redoc_html(openapi_url=_root(request) + OPENAPI, title=app_name)

    return routes


def _root(request: Request) -> str:
    """The path at which the application is mounted; empty at the root."""
    return str(request.scope.get("root_path", "")).rstrip("/")
