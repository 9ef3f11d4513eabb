"""`kronos-api fetch` against a small hub of our own on the loopback interface."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from kronos_api.checkpoints.hub import BUNDLED
from kronos_api.checkpoints.info import Source
from kronos_api.checkpoints.loader import inspect
from kronos_api.checkpoints.registry import PUBLISHED, Published
from tests.cli.conftest import Command

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {"someone/model": BUNDLED / "model", "someone/tokenizer": BUNDLED / "tokenizer"}
FILES = ("config.json", "model.safetensors")


class Hub(BaseHTTPRequestHandler):
    """Lists the files of `REPOSITORIES` and hands them out, as the public hub does."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        for name, folder in REPOSITORIES.items():
            if path.startswith(f"api/models/{name}/tree/"):
                listed = [
                    {"type": "file", "path": file, "oid": "0" * 40, "size": 0} for file in FILES
                ]
                return self._send(json.dumps(listed).encode(), body)
            if path.startswith(f"api/models/{name}"):
                siblings = [{"rfilename": file} for file in (*FILES, "pytorch_model.bin")]
                described = {"id": name, "sha": REVISION, "siblings": siblings}
                return self._send(json.dumps(described).encode(), body)
            for file in FILES:
                if path.startswith(f"{name}/resolve/") and path.endswith(f"/{file}"):
                    return self._send((folder / file).read_bytes(), body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The hub library's cache, while a fake hub runs."""
    cache = tmp_path / "cache"
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        use_hub(monkeypatch, address, cache)
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield cache
        server.shutdown()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


@pytest.mark.usefixtures("hub")
def test_fills_a_folder_that_can_be_served(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    result = command("fetch", "someone/model", "--tokenizer", "someone/tokenizer", "--to", folder)
    assert result.exit_code == 0, result.output
    assert f"KRONOS_MODEL_PATH={folder} kronos-api serve" in result.stdout
    for part in ("model", "tokenizer"):
        assert not (folder / part / "pytorch_model.bin").exists()
        for file in FILES:
            assert (folder / part / file).read_bytes() == (BUNDLED / part / file).read_bytes()
    inspect(Source("model", "m", folder / "model"), Source("tokenizer", "t", folder / "tokenizer"))


def test_fills_the_cache(command: Command, hub: Path) -> None:
    result = command("fetch", f"someone/model@{REVISION}", "--tokenizer", "someone/tokenizer")
    assert result.exit_code == 0, result.output
    expected = f"KRONOS_MODEL_ID=someone/model@{REVISION} KRONOS_TOKENIZER_ID=someone/tokenizer"
    assert f"{expected} kronos-api serve" in result.stdout
    snapshot = hub / "models--someone--model" / "snapshots" / REVISION
    assert sorted(path.name for path in snapshot.iterdir()) == sorted(FILES)


@pytest.mark.usefixtures("hub")
def test_weights_with_another_digest_are_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Published(sha256="0" * 64, tokenizer="someone/tokenizer")
    monkeypatch.setitem(PUBLISHED, "someone/model", known)
    result = command("fetch", "someone/model")
    assert result.exit_code == 1
    assert f"published is {'0' * 64}" in result.stderr.splitlines()[-1]


@pytest.mark.usefixtures("hub")
def test_swapped_model_and_tokenizer_are_refused(command: Command) -> None:
    result = command("fetch", "someone/tokenizer", "--tokenizer", "someone/model")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("kronos-api: model someone/tokenizer: ")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["someone/nothing", "not a name/at all"])
def test_unknown_repository_is_one_line(command: Command, name: str) -> None:
    result = command("fetch", name, "--tokenizer", "someone/tokenizer")
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("kronos-api: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"kronos-api: model {name} could not be fetched from the hub: ")
    assert "Traceback" not in result.output


def test_no_network_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_hub(
        monkeypatch, "http://127.0.0.1:9", tmp_path
    )  # the discard port, where no process listens
    result = command("fetch", "NeoQuasar/Kronos-mini")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(
        "kronos-api: model NeoQuasar/Kronos-mini could not be fetched from the hub: "
    )
    assert "refused" in last


def test_unknown_model_needs_a_tokenizer(command: Command) -> None:
    result = command("fetch", "someone/model")
    assert result.exit_code == 1
    assert result.stderr.startswith("kronos-api: someone/model is not a published model: ")
    assert "--tokenizer NeoQuasar/Kronos-Tokenizer-base" in result.stderr
