"""What is said twice, in the files that images and containers are made of, agrees."""

from __future__ import annotations

import re

from kronos_api.config import Settings, variable
from kronos_api.config.renamed import RENAMED
from tests.integration.stack import ROOT

IMAGES = ("Dockerfile", "Dockerfile.production")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def only(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def test_dockerfiles_differ_only_in_their_last_lines() -> None:
    parts = [read(name).split("# Here the two files part.\n") for name in IMAGES]
    heads = [head[head.index("\nFROM ") :] for head, _ in parts]
    assert heads[0] == heads[1]
    ends = [end[end.index("\nARG VERSION") :] for _, end in parts]
    assert ends[0] == ends[1]


def test_images_have_the_pinned_pytorch() -> None:
    pinned = only(r"^torch==(\S+) ; sys_platform == \"linux\"$", read("requirements/torch.txt"))
    for name in IMAGES:
        assert only(r"^ARG TORCH=(\S+)$", read(name)) == pinned
    compose = only(r"KRONOS_GPU_TORCH:-([\d.]+)", read("docker-compose.yml"))
    assert compose == pinned.partition("+")[0]


def test_image_built_without_arguments_has_the_package_version() -> None:
    version = only(r'^version = "(.*)"$', read("pyproject.toml"))
    for name in IMAGES:
        assert only(r"^ARG VERSION=(\S+)$", read(name)) == version


def test_compose_passes_every_setting() -> None:
    settings = {variable(name) for name in Settings.model_fields}
    # Callers and health checks know address and port; bounds of the plain server are another's.
    own = {name for name in settings if re.match("KRONOS_(HOST|PORT|LIMIT_.*)$", name)}
    assert len(own) == 5
    compose = read("docker-compose.yml")
    passed = compose[compose.index("x-settings:") : compose.index("x-hardened:")]
    names = set(re.findall(r"^  (\w+):", passed, re.MULTILINE))
    assert {name for name in names if not name.startswith("OTEL_")} == (settings - own) | set(
        RENAMED
    )


def test_gateway_limits_match_the_service() -> None:
    settings = Settings()
    gateway = read("deploy/nginx/nginx.conf")
    assert float(only(r"client_max_body_size (\d+)m;", gateway)) == settings.max_request_size_mb
    waits = float(only(r"proxy_read_timeout (\d+)s;", gateway))
    assert waits > settings.request_timeout
    grace = [
        float(each)
        for each in re.findall(r"stop_grace_period: \D*(\d+)s", read("docker-compose.yml"))
    ]
    assert len(grace) == 2
    assert grace[0] > settings.stop_timeout
    assert grace[1] > waits


def test_documented_first_deployment_uses_known_settings() -> None:
    walk = read("docs/deployment.md").partition("## First deployment")[2]
    settings = re.findall(r"^ *([A-Z_]+)=", walk.split("```")[1], re.MULTILINE)
    compose = read("docker-compose.yml")
    known = {variable(name) for name in Settings.model_fields} | {"COMPOSE_PROFILES"}
    assert len(settings) == 5
    for name in settings:
        assert name in known or f"${{{name}:-" in compose
    # The caller of the example is the one on the whitelist.
    assert "KRONOS_CONTAINER_WHITELIST=web" in walk
    assert walk.count("--name web ") == 3
