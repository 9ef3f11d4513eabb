"""What deploy.sh does with replicas, tags and the gateway's files, with a stub of the service."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest

from tests.integration.rolling import Deployment, kill_when
from tests.integration.stack import ROOT, docker, run, until

pytestmark = pytest.mark.docker


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ("to start", 1),  # about when compose makes the new ones, and `:current` is lent
        ("is draining", 1),  # an old one that has ended is beside new ones that run
        ("is draining", 2),  # all run already, and the tags are those of before
    ],
)
def test_next_deployment_tidies_up_after_one_that_was_killed(
    stubs: Deployment, told: str, count: int
) -> None:
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


def test_rollback_of_a_killed_deployment_goes_back_to_what_ran(stubs: Deployment) -> None:
    tags = stubs.tags()
    other = stubs.named(stubs.other())
    kill_when(stubs.start("--image", other), "is draining")
    outcome = stubs.deploy("--rollback")
    assert outcome.status == 0, outcome.said
    assert stubs.images() == {tags["current"]}
    assert stubs.tags() == tags
    assert len(stubs.replicas()) == len(stubs.stack.containers()) == 2


def test_replaced_certificates_are_read_or_the_deployment_fails(stubs: Deployment) -> None:
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


def test_status_shows_what_runs_and_what_was_done(stubs: Deployment) -> None:
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
