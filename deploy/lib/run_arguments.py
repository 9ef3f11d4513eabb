"""Print the arguments of `docker run` for a container as compose would make it of a service.

    docker compose config --format json | python run_arguments.py SERVICE [VOLUME...]

VOLUME are the volumes that exist: others are left out, so that no check makes one. So is every
network. The image is the last. Each ends with NUL, as values may hold anything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from typing import Any


def arguments(model: dict[str, Any], name: str, existing: Collection[str]) -> Iterator[str]:
    """Yield options, then the image, of the service of that name in compose's resolved model."""
    service = model["services"][name]
    yield "--network=none"
    for variable, value in (service.get("environment") or {}).items():
        if value is not None:
            yield f"--env={variable}={value}"
    for mount in service.get("volumes") or ():
        source = mount.get("source", "")
        if mount["type"] == "volume":
            source = (model.get("volumes") or {}).get(source, {}).get("name", source)
            if source not in existing:
                continue
        elif mount["type"] != "bind":
            continue
        described = f"type={mount['type']},source={source},target={mount['target']}"
        yield f"--mount={described}{',readonly' if mount.get('read_only') else ''}"
    for place in service.get("tmpfs") or ():
        yield f"--tmpfs={place}"
    for dropped in service.get("cap_drop") or ():
        yield f"--cap-drop={dropped}"
    for option in service.get("security_opt") or ():
        yield f"--security-opt={option}"
    if service.get("read_only"):
        yield "--read-only"
    if service.get("user"):
        yield f"--user={service['user']}"
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    if limits.get("memory"):
        yield f"--memory={limits['memory']}"
    yield service["image"]


def main() -> None:
    """Print the arguments for the service that the command line names."""
    # Compose doubles every dollar sign, since what it prints is to be read by compose.
    model = json.loads(sys.stdin.read().replace("$$", "$"))
    _, name, *existing = sys.argv
    for argument in arguments(model, name, existing):
        sys.stdout.write(f"{argument}\0")


if __name__ == "__main__":
    main()
