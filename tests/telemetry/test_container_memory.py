"""The memory of the container against its limit."""

from __future__ import annotations

from pathlib import Path

import psutil

from kronos_api.telemetry.container_memory import ContainerMemory


def sizes(root: Path) -> tuple[float, float]:
    used, limit = (family.samples[0].value for family in ContainerMemory(root).collect())
    return used, limit


def write(folder: Path, **files: object) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_limit_and_use_of_a_control_group_are_read(tmp_path: Path) -> None:
    write(
        tmp_path, memory__max=4096, memory__current=3000, memory__stat="anon 5\ninactive_file 900"
    )
    assert sizes(tmp_path) == (2100, 4096)


def test_first_version_of_control_groups_is_read(tmp_path: Path) -> None:
    files = {"memory__limit_in_bytes": 4096, "memory__usage_in_bytes": 3000}
    write(tmp_path / "memory", memory__stat="total_inactive_file 900", **files)
    assert sizes(tmp_path) == (2100, 4096)


def test_group_without_a_limit_reports_the_machine(tmp_path: Path) -> None:
    write(tmp_path, memory__max="max", memory__current=3000, memory__stat="inactive_file 900")
    used, limit = sizes(tmp_path)
    assert limit == psutil.virtual_memory().total
    assert 0 < used < limit
