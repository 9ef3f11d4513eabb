"""deploy.sh and the engine itself: replicas come and go, and no request is lost."""

from __future__ import annotations

import pytest

from tests.integration.rolling import Deployment, interrupt_when, load

pytestmark = pytest.mark.docker

REQUESTS = 600


@pytest.mark.parametrize("back", [False, True], ids=["update", "rollback"])
def test_deployments_and_ended_replicas_lose_no_request(deployment: Deployment, back: bool) -> None:
    before = deployment.tags()
    if back:
        image, arguments = before["previous"], ["--rollback"]
    else:
        tag = deployment.other()
        image, arguments = before[tag], ["--image", deployment.named(tag)]
    with load(deployment.port) as calls:
        outcome = deployment.deploy(*arguments)
        assert outcome.status == 0, outcome.said
        assert len(deployment.replicas()) == 2
        if not back:  # the rollback then finds one replica and starts two
            deployment.terminate_one()
        calls.reaches(REQUESTS)
    assert not calls.failures, (calls.made, calls.failures)
    tags = deployment.tags()
    assert deployment.images() == {image}
    assert (tags["current"], tags["previous"]) == (image, before["current"])
    assert f"({image[7:19]}) are running" in outcome.said


def test_interrupted_deployment_rolls_back_and_a_second_is_refused(
    deployment: Deployment,
) -> None:
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


def test_failed_push_deploys_nothing(deployment: Deployment) -> None:
    before = set(deployment.replicas())
    outcome = deployment.deploy("--push", "127.0.0.1:1")
    assert outcome.status == 4, outcome.said
    assert "docker push 127.0.0.1:1/" in outcome.said
    assert set(deployment.replicas()) == before


def test_invalid_settings_stop_the_deployment_before_any_change(deployment: Deployment) -> None:
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
