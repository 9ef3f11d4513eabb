"""The command line as a whole."""

import hashlib
import subprocess
import sys

import pytest

from kronos_api import __version__
from tests.cli.conftest import Command

HEAVY = ("fastapi", "matplotlib", "pandas", "torch", "uvicorn")


def test_version(command: Command) -> None:
    result = command("--version")
    assert (result.exit_code, result.output) == (0, f"kronos-api {__version__}\n")


@pytest.mark.parametrize("name", ["serve", "predict", "fetch", "mcp"])
def test_commands_explain_themselves(command: Command, name: str) -> None:
    assert name in command("--help").output
    result = command(name, "--help")
    assert result.exit_code == 0
    assert f"{name} [OPTIONS]" in result.output


def test_no_command_shows_the_help(command: Command) -> None:
    assert "Commands" in command().output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, kronos_api.cli\n"
        "try: kronos_api.cli.main()\n"
        f"finally: print(*(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == ""


def test_module_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "kronos_api", "--version"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, f"kronos-api {__version__}\n")


def test_key_new_shows_the_key_once_and_prints_its_line(command: Command) -> None:
    result = command("key", "new", "shop", "--scope", "predict", "--scope", "metrics")
    key = result.stderr.split()[-1]
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert result.stdout == f"shop metrics,predict sha256:{digest}\n"


def test_key_new_refuses_an_unknown_scope(command: Command) -> None:
    result = command("key", "new", "shop", "--scope", "admin")
    assert result.exit_code == 1
    assert "scopes are predict, metrics" in result.stderr
