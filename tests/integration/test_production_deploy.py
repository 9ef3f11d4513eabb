"""What deploy.sh does with replicas, tags and the gateway's files, with a stub of the service."""

from __future__ import annotations

import json
import re
import shutil
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.integration.rolling import STUB, Deployment, kill_when, load, stub_recipe
from tests.integration.stack import ROOT, clean_tree, docker, run, until

pytestmark = pytest.mark.docker

# Healthy, and no forecast.
IMPOSTOR: Final = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
    do_POST = do_GET
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
COUNT_STARTS: Final = """
import os, socket, time
from urllib.parse import urlsplit
redis = urlsplit(os.environ["KRONOS_REDIS_URL"])
with socket.create_connection((redis.hostname, redis.port)) as link:
    link.sendall(b"INCR {key}\\r\\n")
    started = int(link.makefile().readline()[1:])
"""
SERVE: Final = f"\nos.execvp('python', ['python', '{STUB}'])\n"
# The first start of this image succeeds, all others do not.
ONLY_ONCE: Final = (
    COUNT_STARTS.format(key="once") + "if started > 1: raise SystemExit('no second time')" + SERVE
)
# The third start of this image, and each after it, never serves.
MUTE_FROM_THE_THIRD: Final = (
    COUNT_STARTS.format(key="mute") + "if started > 2: time.sleep(3600)" + SERVE
)


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ("to start", 1),  # about when compose makes the new ones, and `:current` is lent
        ("is draining", 1),  # an old one that has ended is beside new ones that run
        ("is draining", 2),  # all run already, and the tags are those of before
    ],
)
def test_deployment_cleans_up_after_a_killed_one(stubs: Deployment, told: str, count: int) -> None:
    image, before = stubs.other(), stubs.tags()["current"]
    other = stubs.named(image)
    kill_when(stubs.start("--image", other, KRONOS_REPLICAS=""), told, count)
    for one, known in stubs.replicas().items():
        if count == 2 and known["Image"] == before:
            docker("stop", one)  # as deploy.sh was about to
    assert "run ./deploy.sh again" in stubs.deploy("--status").said
    outcome = stubs.deploy("--image", other, KRONOS_REPLICAS="")
    assert outcome.status == 0, outcome.said
    tags = stubs.tags()
    assert stubs.images() == {tags[image]}
    assert (tags["current"], tags["previous"]) == (tags[image], before)
    assert "deploying-from" not in tags
    assert len(stubs.replicas()) == len(stubs.stack.containers()) == 2


def test_rollback_of_a_killed_deployment_restores_the_running_image(stubs: Deployment) -> None:
    tags = stubs.tags()
    other = stubs.named(stubs.other())
    kill_when(stubs.start("--image", other), "is draining")
    outcome = stubs.deploy("--rollback")
    assert outcome.status == 0, outcome.said
    assert stubs.images() == {tags["current"]}
    assert stubs.tags() == tags
    assert len(stubs.replicas()) == len(stubs.stack.containers()) == 2


def test_replaced_certificates_are_loaded_or_the_deployment_fails(stubs: Deployment) -> None:
    """A mount stays with the folder it was made of, whatever has its name later."""
    folder = Path(stubs.stack.env["KRONOS_TLS_DIR"])
    current, original = stubs.named("current"), folder.with_name("original")

    def served() -> str:
        return ssl.get_server_certificate(("127.0.0.1", stubs.port), timeout=30)

    before = served()
    folder.rename(original)
    run(ROOT / "deploy" / "nginx" / "self-signed", folder)
    try:
        outcome = stubs.deploy("--image", current)
        assert outcome.status == 0, outcome.said
        assert served() == (folder / "fullchain.pem").read_text() != before
        # Written to in place: no restart is needed, and no caller notices.
        for name in ("fullchain.pem", "privkey.pem"):
            (folder / name).chmod(0o644)
            shutil.copyfile(original / name, folder / name)
        outcome = stubs.deploy("--image", current)
        assert "has read its configuration and certificate again" in outcome.said
        until(lambda: served() == before, 30, "the old certificate is served again")
        # Keys of other certificates: one of the same kind, and one of another, which nginx takes.
        curve = ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        for kind, reason in ((curve, "key values mismatch"), (("RSA",), "is not the key of")):
            run("openssl", "genpkey", "-algorithm", *kind, "-out", folder / "privkey.pem")
            (folder / "privkey.pem").chmod(0o644)
            outcome = stubs.deploy("--image", current)
            assert outcome.status == 3, outcome.said
            assert reason in outcome.said
        assert served() == before
    finally:
        shutil.rmtree(folder)
        original.rename(folder)
    assert stubs.deploy("--image", current).status == 0
    assert served() == before


def test_status_shows_replicas_and_history(stubs: Deployment) -> None:
    outcome = stubs.deploy("--status")
    assert outcome.status == 0, outcome.said
    for known in stubs.replicas().values():
        (line,) = (each for each in outcome.said.splitlines() if known["Name"][1:] in each)
        assert "healthy" in line
        assert "1.2.3 " in line
        assert "commit-of-" in line
        assert known["Image"][7:19] in line
    assert "redis:7-alpine" in outcome.said
    assert "deployed" in outcome.said.partition("HISTORY")[2]


def test_dry_run_of_a_first_deployment_creates_nothing(stubs: Deployment) -> None:
    """It builds the service itself, whose settings and checkpoint are judged."""
    project = f"{stubs.stack.project}-first"
    first = {
        "COMPOSE_PROJECT_NAME": project,
        "KRONOS_NETWORK": project,
        "XDG_STATE_HOME": str(stubs.state / "first"),
    }
    tags = stubs.tags()
    outcome = stubs.deploy("--dry-run", **first)
    assert outcome.status == 0, outcome.said
    assert "settings and checkpoint: " in outcome.said
    assert "would start 2" in outcome.said
    outcome = stubs.deploy("--dry-run", **first, KRONOS_MODEL_PATH="/models/gone")
    assert outcome.status == 3, outcome.said
    assert "/models/gone" in outcome.said
    for kind in ("container", "network", "volume"):
        all_of_them = ("--all",) if kind == "container" else ()
        assert docker(kind, "ls", *all_of_them, "--quiet", "--filter", f"name={project}") == ""
    assert stubs.tags() == tags
    assert not (stubs.state / "first").exists()


def test_missing_replica_is_replaced_and_a_repeat_changes_nothing(stubs: Deployment) -> None:
    current = stubs.named("current")
    assert stubs.deploy("--image", current).status == 0
    before = set(stubs.replicas())
    docker("rm", "--force", min(before))
    assert stubs.deploy("--image", current).status == 0
    now = set(stubs.replicas())
    assert len(now) == 2
    assert len(now & before) == 1
    again = stubs.deploy("--image", current)
    assert (again.status, "nothing to do" in again.said) == (0, True), again.said
    assert set(stubs.replicas()) == now


@pytest.mark.parametrize(
    ("name", "command", "timeout", "reason"),
    [
        ("ends", ["sh", "-c", "echo cannot go on; exit 1"], "240", "exited during its start"),
        ("mute", ["sleep", "600"], "5", "did not become healthy within 5 s"),
        ("wrong", ["python", "-c", IMPOSTOR], "240", "failed the smoke test"),
    ],
)
def test_failing_image_is_rolled_back(
    stubs: Deployment, name: str, command: list[str], timeout: str, reason: str
) -> None:
    bad = stubs.image(name, f"CMD {json.dumps(command)}")
    before = stubs.replicas()
    tags = stubs.tags()
    with load(stubs.port) as calls:
        outcome = stubs.deploy("--image", bad, DEPLOY_TIMEOUT=timeout)
    assert outcome.status == 5, outcome.said
    assert reason in outcome.said
    assert "rolled back: 2 replicas" in outcome.said
    (running,) = stubs.images()
    assert f"({running[7:19]}); " in outcome.said
    if name == "ends":
        assert "cannot go on" in outcome.said
    assert not calls.failures, (calls.made, calls.failures)
    after = stubs.replicas()
    assert {one: known["State"]["StartedAt"] for one, known in after.items()} == {
        one: known["State"]["StartedAt"] for one, known in before.items()
    }
    assert len(stubs.stack.containers()) == 2
    assert stubs.tags() == tags


def test_replaced_replicas_are_restored_when_a_later_one_fails(stubs: Deployment) -> None:
    bad = stubs.image("once", f"CMD {json.dumps(['python', '-c', ONLY_ONCE])}")
    before = set(stubs.replicas())
    outcome = stubs.deploy("--image", bad)
    assert outcome.status == 5, outcome.said
    assert "no second time" in outcome.said
    assert set(stubs.replicas()) == before
    assert len(stubs.stack.containers()) == 2


def test_restored_replica_is_reachable_after_a_failed_rollback(stubs: Deployment) -> None:
    late = stubs.image("late", f"CMD {json.dumps(['python', '-c', MUTE_FROM_THE_THIRD])}")
    assert stubs.deploy("--image", late).status == 0
    bad = stubs.image("once", f"CMD {json.dumps(['python', '-c', ONLY_ONCE])}")
    docker("exec", *stubs.stack.containers("redis"), "redis-cli", "del", "once")
    outcome = stubs.deploy("--image", bad, DEPLOY_TIMEOUT="20")
    assert outcome.status == 7, outcome.said
    assert "could not be brought back" in outcome.said
    replicas = stubs.replicas()
    assert len(replicas) == 3
    for one, known in replicas.items():
        networks = known["NetworkSettings"]["Networks"]
        assert "kronos-api" in networks[stubs.stack.network]["Aliases"]
        if known["State"]["Health"]["Status"] != "healthy":
            docker("rm", "--force", one)  # what is mute does not hear SIGTERM either
    outcome = stubs.deploy("--image", stubs.named("a"))
    assert outcome.status == 0, outcome.said
    assert len(stubs.stack.containers()) == 2


def test_dry_run_changes_nothing(stubs: Deployment) -> None:
    before, tags = set(stubs.replicas()), stubs.tags()
    image = stubs.named(stubs.other())
    outcome = stubs.deploy("--dry-run", "--image", image, "--replicas", "3")
    assert outcome.status == 0, outcome.said
    assert "would start 3, stop 2" in outcome.said
    assert (set(stubs.replicas()), stubs.tags()) == (before, tags)


def test_pushed_image_is_deployed_from_the_registry(
    stubs: Deployment, registry: str, tmp_path: Path
) -> None:
    """Of a small image: the service's own takes a minute to compress."""
    tree = clean_tree(tmp_path / "tree")
    (tree / "Dockerfile.production").write_text(stub_recipe("c"), "utf-8")
    deployment = replace(stubs, root=tree)
    outcome = deployment.deploy("--push", registry)
    assert outcome.status == 0, outcome.said
    (pushed,) = re.findall(r"pushed (\S+)", outcome.said)
    assert pushed.startswith(f"{registry}/{deployment.repository}:")
    running = deployment.images()
    # The same content once more.
    outcome = deployment.deploy()
    assert (outcome.status, "nothing to do" in outcome.said) == (0, True), outcome.said
    docker("image", "rm", pushed)
    outcome = deployment.deploy("--image", pushed)
    assert (outcome.status, "nothing to do" in outcome.said) == (0, True), outcome.said
    assert deployment.images() == running
    docker("image", "rm", pushed)
