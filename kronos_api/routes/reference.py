"""The OpenAPI document as one HTML page: operations, then types, without scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/reference.css">
<header><h1>{title} <small>{version}</small></h1>{description}
<p><a href="openapi.json">OpenAPI document</a>{links}</p></header>
<nav aria-label="Operations"><ul>{contents}</ul></nav>
<main>{operations}<h2 id="types">Types</h2>{types}</main>
</html>
"""
TRY: Final = ' · <a href="docs">Swagger UI</a>, to send requests'
INSTALL: Final = (
    " · to send requests from <code>/docs</code>, install Swagger UI: "
    "<code>pip install 'kronos-api[playground]'</code>"
)
REF: Final = "#/components/schemas/"
_CODE: Final = re.compile(r"`([^`]+)`")

Json = Mapping[str, Any]


def render(document: Json, *, tryable: bool) -> str:
    """The page of `document`; `tryable`: whether `/docs` is another page, which sends requests."""
    info = document["info"]
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return PAGE.format(
        title=escape(info["title"]),
        version=escape(info["version"]),
        description=_prose(info.get("description", "")),
        links=TRY if tryable else INSTALL,
        contents="".join(
            f'<li><a href="#{one["operationId"]}">{method.upper()} {escape(path)}</a></li>'
            for method, path, one in operations
        ),
        operations="".join(_operation(*one) for one in operations),
        types="".join(
            _type(name, schema)
            for name, schema in sorted(document["components"]["schemas"].items())
        ),
    )


def _operation(method: str, path: str, operation: Json) -> str:
    responses = "".join(
        f"<tr><td>{status}</td><td>{_prose(one.get('description', ''))}</td>"
        f"<td>{_content(one)}</td></tr>"
        for status, one in operation["responses"].items()
    )
    body = operation.get("requestBody", {})
    asked = f"<h3>Request</h3><p>{_content(body)}</p>{_examples(body)}" if body else ""
    return (
        f'<section><h2 id="{operation["operationId"]}"><b>{method.upper()}</b> '
        f"{escape(path)}</h2>{_prose(operation.get('description', ''))}{asked}"
        "<h3>Responses</h3><div><table><thead><tr><th>Status</th><th>Description</th>"
        f"<th>Content</th></tr></thead><tbody>{responses}</tbody></table></div></section>"
    )


def _content(node: Json) -> str:
    """Media types and types of a body."""
    return "<br>".join(
        f"{escape(media)}: {_of_type(one.get('schema', {}))}"
        for media, one in node.get("content", {}).items()
    )


def _examples(body: Json) -> str:
    found = ""
    for one in body["content"].values():
        for example in one.get("examples", {}).values():
            text = json.dumps(example["value"], indent=2, ensure_ascii=False)
            summary = escape(example.get("summary", "Example"))
            found += f"<details><summary>{summary}</summary><pre>{escape(text)}</pre></details>"
    return found


def _type(name: str, schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{'' if field in required else ' (optional)'}</td>"
        f"<td>{_of_type(one)}</td><td>{_prose(one.get('description', ''))}</td></tr>"
        for field, one in schema.get("properties", {}).items()
    )
    table = (
        "<div><table><thead><tr><th>Field</th><th>Type</th><th>Description</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
    values = "" if rows else f"<p>{_of_type(schema)}</p>"
    heading = f'<section><h3 id="type-{escape(name)}">{escape(name)}</h3>'
    return (
        heading + _prose(schema.get("description", "")) + (table if rows else values) + "</section>"
    )


def _of_type(schema: Json) -> str:
    """The type of a value, with links to named ones."""
    if ref := schema.get("$ref"):
        name = escape(ref.removeprefix(REF))
        return f'<a href="#type-{name}">{name}</a>'
    if "enum" in schema:
        return ", ".join(f"<code>{escape(json.dumps(one))}</code>" for one in schema["enum"])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_of_type(one) for one in options)
    if schema.get("type") == "array":
        return f"array of {_of_type(schema.get('items', {}))}{_bounds(schema)}"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"object of {_of_type(values)}"
    return f"{escape(str(schema.get('type', 'any')))}{_bounds(schema)}"


def _bounds(schema: Json) -> str:
    return "".join(_bound(schema))


def _bound(schema: Json) -> Iterator[str]:
    for name, sign in (
        *(("minimum", "≥"), ("exclusiveMinimum", "&gt;"), ("maximum", "≤")),
        *(("exclusiveMaximum", "&lt;"), ("minItems", "at least"), ("maxItems", "at most")),
        *(("minLength", "length ≥"), ("maxLength", "length ≤")),
    ):
        if name in schema:
            yield f", {sign} {schema[name]}"


def _prose(text: str) -> str:
    """Paragraphs with `code`."""
    marked = _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
    return "".join(f"<p>{part}</p>" for part in marked.split("\n\n") if part.strip())
