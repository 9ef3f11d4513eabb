"""Reads the settings; one line names all violations."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from pydantic import ValidationError

from kronos_api.config.env_file import ENV_FILE, EnvFile, read_env_file
from kronos_api.config.names import unknown_variables, variable
from kronos_api.config.renamed import Renamed, translate
from kronos_api.config.serving import GUNICORN, PREFIX
from kronos_api.config.settings import Settings
from kronos_api.errors import StartupError

INFO: Final = "info"
WARNING: Final = "warning"

log = structlog.stdlib.get_logger(__name__)


def load_settings(tell: Callable[[str], object] | None = None) -> Settings:
    """Read the environment, and `.env` in the working directory for what the environment lacks.

    A variable that is set but empty in the environment is not looked up in the file. `tell` gets
    one line for the file that was read, for each name that is no setting, and for each old name of
    a renamed setting; by default they are logged.

    Raises:
        StartupError: one line names every bad variable and its rule.
    """
    file = read_env_file(os.environ)
    given = _given(file, os.environ) if file else {}
    renamed = translate(_all_variables(file, os.environ))
    arguments: dict[str, Any] = {
        _argument(name): value for name, value in (given | renamed.values).items()
    }
    try:
        settings = Settings(**arguments)
    except ValidationError as error:
        raise StartupError(_one_line(error, given, renamed)) from None
    for level, event, line in _notes(file, len(given), renamed):
        if tell is not None:
            tell(line)
        else:
            getattr(log, level)(event, message=line)
    return settings


def _notes(file: EnvFile | None, read: int, renamed: Renamed) -> list[tuple[str, str, str]]:
    """Level, log event and line of each thing that an operator should know."""
    notes = []
    if file is not None:
        notes.append((INFO, "env_file_read", f"{read} settings read from {file.path}"))
        for number in file.ignored_lines:
            line = f"{file.path.name}: line {number} is ignored: it is not of the form NAME=value"
            notes.append((WARNING, "env_file_line_ignored", line))
        for line in unknown_variables(file.values, misspelt_prefixes=True):
            notes.append((WARNING, "unknown_setting", f"{file.path.name}: {line}"))
    notes += [(WARNING, "unknown_setting", line) for line in unknown_variables(os.environ)]
    notes += [(WARNING, "renamed_setting", line) for line in renamed.warnings]
    return notes


def _all_variables(file: EnvFile | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of both by their names in upper case; the environment goes first."""
    sources = (file.values if file is not None else {}, environ)
    return {name.upper(): value for source in sources for name, value in source.items()}


def _given(file: EnvFile, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of `file` by their variables, without those that `environ` has."""
    settings = {variable(name) for name in Settings.model_fields}
    taken = {name.upper() for name in environ}
    values = {name.upper(): value for name, value in file.values.items()}
    return {
        name: value
        for name, value in values.items()
        if value and name in settings and name not in taken
    }


def _argument(name: str) -> str:
    """The name under which `Settings` takes the variable `name` as an argument."""
    return name if name.startswith(GUNICORN) else name.removeprefix(PREFIX).lower()


def _one_line(error: ValidationError, from_file: Mapping[str, str], renamed: Renamed) -> str:
    """All violations, joined by "; ". Values are left out: a variable can hold a secret."""
    violations = []
    for violation in error.errors(include_url=False, include_input=False):
        message = violation["msg"].removeprefix("Value error, ")
        if violation["loc"]:
            name = str(violation["loc"][0])
            name = variable(name) if name in Settings.model_fields else name.upper()
            where = f"{name} in {ENV_FILE}" if name in from_file else name
            if name in renamed.old_names:
                where = f"{name} (set as {renamed.old_names[name]})"
            message = f"{where}: {message[0].lower()}{message[1:]}{_default(name)}"
        violations.append(message)
    return "; ".join(violations)


def _default(name: str) -> str:
    """The default of the variable `name` as an example, if it has one."""
    fields = {variable(field): info.default for field, info in Settings.model_fields.items()}
    default = fields.get(name)
    return "" if default is None else f" (default: {default})"
