"""What is said twice, in the files that images and containers are made of, agrees."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from kronos_api.config import Settings, variable
from kronos_api.config.renamed import RENAMED
from tests.integration.stack import ROOT, run

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


def gateway_limits(folder: Path, **settings: str) -> dict[str, float]:
    """Bytes and milliseconds that the gateway's script writes for nginx."""
    run(
        ROOT / "deploy" / "nginx" / "settings", folder, env={"PATH": os.environ["PATH"], **settings}
    )
    written = (folder / "http.conf").read_text("utf-8")
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\d+)m?s?;", written, re.M)}


def test_compose_mounts_the_folder_of_the_documented_file_of_keys() -> None:
    compose = yaml.safe_load(read("docker-compose.yml"))
    file = only(r"set `KRONOS_API_KEYS_FILE=(/\S+)`", read("docs/security.md"))
    folder = f"${{KRONOS_API_KEYS_DIR:-keys}}:{file.rpartition('/')[0]}:ro"
    for service in ("kronos-api", "kronos-api-gpu"):
        assert folder in compose["services"][service]["volumes"]
        assert "KRONOS_API_KEYS_FILE" in compose["services"][service]["environment"]
    assert "keys" in compose["volumes"]


def test_gateway_limits_match_the_service(tmp_path: Path) -> None:
    settings = Settings()
    assert gateway_limits(tmp_path) == {
        "client_max_body_size": settings.max_request_bytes,
        "client_header_timeout": settings.header_timeout * 1000,
        "client_body_timeout": settings.body_timeout * 1000,
        "send_timeout": settings.send_timeout * 1000,
        "proxy_read_timeout": (settings.request_timeout + 5) * 1000,
    }
    grace = re.findall(r"stop_grace_period: \D*(\d+)s", read("docker-compose.yml"))
    assert len(grace) == 2
    assert min(float(each) for each in grace) > settings.stop_timeout > settings.request_timeout + 5


def test_gateway_limits_follow_the_settings(tmp_path: Path) -> None:
    changed = {
        "KRONOS_MAX_REQUEST_SIZE_MB": "0.5",
        "KRONOS_HEADER_TIMEOUT": "1.5",
        "KRONOS_REQUEST_TIMEOUT": "120",
        "KRONOS_ANSWER_TIMEOUT": "7",  # the old name
    }
    limits = gateway_limits(tmp_path, **changed)
    assert limits["client_max_body_size"] == 2**19
    assert limits["client_header_timeout"] == 1500
    assert limits["proxy_read_timeout"] == 125_000
    assert limits["send_timeout"] == 7000
    # Compose hands each of them to both.
    compose = read("docker-compose.yml")
    for name in changed:
        assert compose.count(f"  {name}:\n") == 2


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
