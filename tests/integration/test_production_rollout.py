"""deploy.sh and the engine itself: replicas come and go, and no request is lost."""

from __future__ import annotations

import json
import re

import pytest

from tests.integration.rolling import Deployment, interrupt_when, load
from tests.integration.stack import docker

pytestmark = pytest.mark.docker

ROUNDS = 2
"""There and back: every further one repeats the first two."""
REQUESTS = 600

# Healthy, and no forecast.
IMPOSTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
    do_POST = do_GET
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
# The first start of this image succeeds, all others do not.
ONLY_ONCE = """
import os, redis
if redis.Redis.from_url(os.environ["KRONOS_REDIS_URL"]).incr("started") > 1:
    raise SystemExit("no second time")
os.execvp("kronos-api", ["kronos-api", "serve"])
"""
# The third start of this image, and each after it, never serves.
MUTE_FROM_THE_THIRD = """
import os, redis, time
if redis.Redis.from_url(os.environ["KRONOS_REDIS_URL"]).incr("started late") > 2:
    time.sleep(3600)
os.execvp("kronos-api", ["kronos-api", "serve"])
"""


def test_updates_and_ended_replicas_lose_no_request(deployment: Deployment) -> None:
    for number in range(ROUNDS):
        image, before = deployment.other(), deployment.tags()["current"]
        with load(deployment.port) as calls:
            outcome = deployment.deploy("--image", deployment.named(image))
            assert outcome.status == 0, outcome.said
            assert len(deployment.replicas()) == 2
            deployment.terminate_one()
            calls.reaches(REQUESTS)
        assert not calls.failures, (number, calls.made, calls.failures)
        tags = deployment.tags()
        assert deployment.images() == {tags[image]}
        assert (tags["current"], tags["previous"]) == (tags[image], before)


def test_a_lost_replica_is_replaced_and_then_nothing_is_left_to_do(deployment: Deployment) -> None:
    current = deployment.named("current")
    assert deployment.deploy("--image", current).status == 0
    before = set(deployment.replicas())
    docker("rm", "--force", min(before))
    assert deployment.deploy("--image", current).status == 0
    now = set(deployment.replicas())
    assert len(now) == 2
    assert len(now & before) == 1
    again = deployment.deploy("--image", current)
    assert (again.status, "nothing to do" in again.said) == (0, True), again.said
    assert set(deployment.replicas()) == now


@pytest.mark.parametrize(
    ("name", "command", "timeout", "reason"),
    [
        ("ends", ["sh", "-c", "echo cannot go on; exit 1"], "240", "exited during its start"),
        ("mute", ["sleep", "600"], "5", "did not become healthy within 5 s"),
        ("wrong", ["python", "-c", IMPOSTOR], "240", "failed the smoke test"),
    ],
)
def test_a_bad_image_is_rolled_back(
    deployment: Deployment, name: str, command: list[str], timeout: str, reason: str
) -> None:
    bad = deployment.image(name, f"CMD {json.dumps(command)}")
    before = deployment.replicas()
    tags = deployment.tags()
    with load(deployment.port) as calls:
        outcome = deployment.deploy("--image", bad, DEPLOY_TIMEOUT=timeout)
    assert outcome.status == 5, outcome.said
    assert reason in outcome.said
    assert "rolled back: 2 replicas" in outcome.said
    (running,) = deployment.images()
    assert f"({running[7:19]}); " in outcome.said
    if name == "ends":
        assert "cannot go on" in outcome.said
    assert not calls.failures, (calls.made, calls.failures)
    after = deployment.replicas()
    assert {one: known["State"]["StartedAt"] for one, known in after.items()} == {
        one: known["State"]["StartedAt"] for one, known in before.items()
    }
    assert len(deployment.stack.containers()) == 2
    assert deployment.tags() == tags


def test_what_was_replaced_comes_back_if_a_later_one_fails(deployment: Deployment) -> None:
    bad = deployment.image("once", f"CMD {json.dumps(['python', '-c', ONLY_ONCE])}")
    before = set(deployment.replicas())
    with load(deployment.port) as calls:
        outcome = deployment.deploy("--image", bad)
    assert outcome.status == 5, outcome.said
    assert "no second time" in outcome.said
    assert not calls.failures, (calls.made, calls.failures, outcome.said)
    assert set(deployment.replicas()) == before
    assert len(deployment.stack.containers()) == 2


def test_what_comes_back_late_is_found_by_callers(deployment: Deployment) -> None:
    late = deployment.image("late", f"CMD {json.dumps(['python', '-c', MUTE_FROM_THE_THIRD])}")
    assert deployment.deploy("--image", late).status == 0
    bad = deployment.image("once", f"CMD {json.dumps(['python', '-c', ONLY_ONCE])}")
    docker("exec", *deployment.stack.containers("redis"), "redis-cli", "del", "started")
    outcome = deployment.deploy("--image", bad, DEPLOY_TIMEOUT="90")
    assert outcome.status == 7, outcome.said
    assert "could not be brought back" in outcome.said
    replicas = deployment.replicas()
    assert len(replicas) == 3
    for one, known in replicas.items():
        networks = known["NetworkSettings"]["Networks"]
        assert "kronos-api" in networks[deployment.stack.network]["Aliases"]
        if known["State"]["Health"]["Status"] != "healthy":
            docker("rm", "--force", one)  # what is mute does not hear SIGTERM either
    outcome = deployment.deploy("--image", deployment.named("a"))
    assert outcome.status == 0, outcome.said
    assert len(deployment.stack.containers()) == 2


def test_one_at_a_time_and_an_interrupted_one_goes_back(deployment: Deployment) -> None:
    other = deployment.named(deployment.other())
    before = set(deployment.replicas())
    with load(deployment.port) as calls:
        first = deployment.start("--image", other)
        assert first.stdout is not None
        for line in first.stdout:
            if "starts" in line:
                break
        second = deployment.start("--image", other)
        outcome = interrupt_when(first, "is draining")
        said, _ = second.communicate(timeout=600)
        assert second.returncode == 6, said
    assert outcome.status == 130, outcome.said
    assert "rolled back: 2 replicas" in outcome.said
    assert not calls.failures, (calls.made, calls.failures, outcome.said)
    assert set(deployment.replicas()) == before


def test_what_cannot_be_pushed_is_not_deployed(deployment: Deployment) -> None:
    before = set(deployment.replicas())
    outcome = deployment.deploy("--push", "127.0.0.1:1")
    assert outcome.status == 4, outcome.said
    assert "docker push 127.0.0.1:1/" in outcome.said
    assert set(deployment.replicas()) == before


def test_what_was_pushed_can_be_deployed_from_there(deployment: Deployment, registry: str) -> None:
    outcome = deployment.deploy("--push", registry)
    assert outcome.status == 0, outcome.said
    (pushed,) = re.findall(r"pushed (\S+)", outcome.said)
    assert pushed.startswith(f"{registry}/{deployment.repository}:")
    running = deployment.images()
    # The same content once more, whether the tree is clean or dirty.
    outcome = deployment.deploy()
    assert (outcome.status, "nothing to do" in outcome.said) == (0, True), outcome.said
    docker("image", "rm", pushed)
    outcome = deployment.deploy("--image", pushed)
    assert (outcome.status, "nothing to do" in outcome.said) == (0, True), outcome.said
    assert deployment.images() == running
    docker("image", "rm", pushed)
    assert deployment.deploy("--rollback").status == 0


def test_the_image_before_can_be_had_back(deployment: Deployment) -> None:
    if "previous" not in deployment.tags():
        assert deployment.deploy("--image", deployment.named(deployment.other())).status == 0
    before = deployment.tags()
    with load(deployment.port) as calls:
        outcome = deployment.deploy("--rollback")
    assert outcome.status == 0, outcome.said
    assert not calls.failures, (calls.made, calls.failures)
    after = deployment.tags()
    assert deployment.images() == {before["previous"]}
    assert f"({before['previous'][7:19]}) are running" in outcome.said
    assert (after["current"], after["previous"]) == (before["previous"], before["current"])


def test_a_dry_run_changes_nothing(deployment: Deployment) -> None:
    before, tags = set(deployment.replicas()), deployment.tags()
    image = deployment.named(deployment.other())
    outcome = deployment.deploy("--dry-run", "--image", image, "--replicas", "3")
    assert outcome.status == 0, outcome.said
    assert "would start 3, stop 2" in outcome.said
    assert (set(deployment.replicas()), deployment.tags()) == (before, tags)


def test_bad_settings_are_told_before_anything_changes(deployment: Deployment) -> None:
    before = set(deployment.replicas())
    image = deployment.named(deployment.other())
    for variable, value, told in (
        ("KRONOS_REQUEST_TIMEOUT", "1", "must be below KRONOS_REQUEST_TIMEOUT"),
        ("KRONOS_MODEL_PATH", "/models/gone", "/models/gone"),
        ("KRONOS_TLS_DIR", "/nowhere", "/nowhere"),
        ("KRONOS_IMAGE", "kronos-api:1.2.3", "must end in :current"),
    ):
        outcome = deployment.deploy("--image", image, **{variable: value})
        assert outcome.status == 3, outcome.said
        assert told in outcome.said
    outcome = deployment.deploy("--image", "127.0.0.1:1/no/such:image")
    assert outcome.status == 4, outcome.said
    assert set(deployment.replicas()) == before
