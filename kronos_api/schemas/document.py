"""The OpenAPI document, in the form that client generators handle well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from kronos_api.schemas.requests import BatchRequest, PredictRequest
from kronos_api.schemas.responses import CandleEvent

RETRIED: Final = ("409", "429", "503")
"""Statuses whose responses say by Retry-After when to ask again."""

BEARER: Final = "ApiKey"
"""Name of the security scheme."""

HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-ID": {
        "description": "The caller's own request id if it matches `^[A-Za-z0-9._-]{1,64}$`, "
        "else one made by the service. Quote it when you report a failure.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {
        "description": "`Bearer`, with `error` if the request has an API key or token that is "
        "not valid.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-Cache": {
        "description": "`hit`: a response that was kept; `miss`: it was computed. Absent where no "
        "response is kept: without a seed or an Idempotency-Key, or with KRONOS_CACHE=off.",
        "schema": {"type": "string", "enum": ["hit", "miss"]},
    },
    "X-RateLimit-Limit": {
        "description": "Requests that the caller may send in the window that binds first: "
        "forecasts, or requests for other routes.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {
        "description": "Requests left to the caller in that window.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Reset": {
        "description": "When that window ends, in seconds since 1970-01-01 UTC.",
        "schema": {"type": "integer"},
    },
}


def complete(
    document: dict[str, Any], *, keys: bool = False, tokens: bool = False
) -> dict[str, Any]:
    """Add to FastAPI's `document` what it cannot know; changes and returns it.

    The routes read request bodies and write events themselves, so their models are added here.
    Response headers are set by middleware, so they are added here. Defaults go, since generators
    make a field with a default one that the caller must give; the descriptions name them. A
    constant becomes an enum of one value, since generators type constants wrongly.

    keys: whether API keys are accepted; tokens: whether ServiceAccount tokens are.
    """
    _, definitions = models_json_schema(
        [
            (PredictRequest, "validation"),
            (BatchRequest, "validation"),
            (CandleEvent, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    document["components"]["schemas"] |= definitions["$defs"]
    challenged = keys or tokens
    document["components"]["headers"] = {
        name: header for name, header in HEADERS.items() if challenged or name != "WWW-Authenticate"
    }
    if challenged:
        _add_credentials(document, keys, tokens)
    for operations in document["paths"].values():
        for operation in operations.values():
            limited = "429" in operation["responses"]
            kept = any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ()))
            for status, response in operation["responses"].items():
                response["headers"] = {
                    name: {"$ref": f"#/components/headers/{name}"}
                    for name in _headers(status, limited, kept)
                }
    _simplify(document["components"]["schemas"])
    return document


def _add_credentials(document: dict[str, Any], keys: bool, tokens: bool) -> None:
    """Add the security scheme, and 401, to the operations that check the caller.

    A credential is optional, because the whitelist lists callers as well.
    """
    kinds = {"A key of KRONOS_API_KEYS_FILE": keys, "A Kubernetes ServiceAccount token": tokens}
    description = ", or a".join(kind.removeprefix("A") for kind, on in kinds.items() if on)
    document["components"]["securitySchemes"] = {
        BEARER: {"type": "http", "scheme": "bearer", "description": f"A{description}."}
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            refusal = operation["responses"].get("403")
            if refusal is not None:
                operation["security"] = [{BEARER: []}, {}]
                operation["responses"]["401"] = refusal | {"description": "UNAUTHENTICATED"}
                refusal["description"] += ", INSUFFICIENT_SCOPE" if keys else ""


def _headers(status: str, limited: bool, kept: bool) -> Iterator[str]:
    yield "X-Request-ID"
    if status == "401":
        yield "WWW-Authenticate"
    if kept and status == "200":
        yield "X-Cache"
    if status in RETRIED:
        yield "Retry-After"
    # The limit counts after the caller is known and the place is taken: 403 and 503 may lack them.
    if limited and status not in ("401", "403", "503"):
        yield from ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def _simplify(node: Any) -> None:
    if isinstance(node, dict):
        # A property may bear the name "default" or "const"; then its value is a schema.
        if "default" in node and not isinstance(node["default"], dict):
            del node["default"]
        if "const" in node and not isinstance(node["const"], dict):
            node["enum"] = [node.pop("const")]
        for value in node.values():
            _simplify(value)
    elif isinstance(node, list):
        for value in node:
            _simplify(value)
