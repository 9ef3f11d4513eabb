"""Reads `.env` in the working directory, by the rules by which Docker Compose reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

from kronos_api.errors import StartupError

ENV_FILE: Final = Path(".env")

_VARIABLE: Final = re.compile(
    r"\$(?:\$|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<when>:?-)(?P<default>[^{}]*))?\}"
    r"|(?P<bare>[A-Za-z_]\w*))"
)


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The variables of a file."""

    path: Path
    values: dict[str, str] = field(default_factory=dict)
    ignored_lines: list[int] = field(default_factory=list)
    """Numbers of the lines that are not of the form NAME=value."""


def read_env_file(environ: Mapping[str, str]) -> EnvFile | None:
    """The `.env` of the working directory; None if there is none.

    Quotes, comments and `export` are those of a shell. `$NAME`, `${NAME}`, `${NAME-default}` and
    `${NAME:-default}` are replaced from `environ`, else from the lines before, outside single
    quotes; `$$` is a dollar sign.

    Raises:
        StartupError: the file cannot be read.
    """
    try:
        if not ENV_FILE.is_file():  # a folder of this name can be a virtual environment
            return None
        path = ENV_FILE.absolute()
        with path.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except OSError as error:
        raise StartupError(f"{ENV_FILE} cannot be read: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise StartupError(f"{path} cannot be read: it is not UTF-8") from None
    found = EnvFile(path)
    for binding in bindings:
        if binding.error:
            found.ignored_lines.append(binding.original.line)
        elif binding.key is not None and binding.value is not None:
            raw = binding.original.string.partition("=")[2].lstrip()
            value = binding.value
            if not raw.startswith("'"):
                value = _expand(value, found.values | dict(environ))
            found.values[binding.key] = value
    return found


def _expand(text: str, variables: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        if name is None:
            return "$"
        value = variables.get(name)
        if value is None or (match["when"] == ":-" and not value):
            return match["default"] or ""
        return value

    return _VARIABLE.sub(replace, text)
