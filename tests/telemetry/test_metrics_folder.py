"""The folder of the workers' metrics: made, told from those of others, and gone at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.telemetry.counting import PREPARE, ROOT, files, prepared, preparing


def test_a_service_leaves_nothing_but_finds_what_a_killed_one_left(tmp_path: Path) -> None:
    with preparing(tmp_path) as killed:
        left = prepared(killed)
        killed.kill()
    (tmp_path / "another.db").touch()
    with preparing(tmp_path) as service:
        assert prepared(service).is_dir()
        assert not left.exists()
        service.communicate()
        assert service.returncode == 0
    assert files(tmp_path) == {"another.db"}


def test_services_of_one_host_leave_each_other_alone(tmp_path: Path) -> None:
    with preparing(tmp_path) as first, preparing(tmp_path) as second:
        folders = prepared(first), prepared(second)
        assert folders[0] != folders[1]
        assert all((folder / "counter_1.db").stat().st_size for folder in folders)
        for service in (first, second):
            service.communicate()


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    with preparing(tmp_path) as service:
        assert prepared(service).stat().st_mode & 0o777 == 0o700
        service.communicate()


def test_it_is_prepared_once(tmp_path: Path) -> None:
    twice = PREPARE + "assert prepare(None) == prepare(Path('/nowhere'))\n"
    with preparing(tmp_path, twice) as service:
        _, errors = service.communicate()
    assert (service.returncode, errors) == (0, "")


def test_a_child_does_not_take_the_folder_with_it(tmp_path: Path) -> None:
    forking = PREPARE + (
        "import os\nfolder = prepare(None)\nif os.fork() == 0:\n    sys.exit()\n"
        "os.wait()\nassert (folder / 'lock').exists()\n"
    )
    with preparing(tmp_path, forking) as service:
        _, errors = service.communicate()
    assert (service.returncode, errors) == (0, "")
    assert not files(tmp_path)


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with preparing(tmp_path / "file" / "folder") as service:
        output, errors = service.communicate()
    assert (service.returncode, output) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith(f"cannot keep metrics in {tmp_path}/file/folder: not a directory")
    assert "KRONOS_METRICS_DIR" in line


def test_room_is_taken_before_it_is_needed(tmp_path: Path) -> None:
    small = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
    with preparing(tmp_path, small + PREPARE) as service:
        _, errors = service.communicate()
    assert service.returncode == 1
    assert errors.startswith(f"cannot keep metrics in {tmp_path}: file too large")
    assert not files(tmp_path)


def test_preparing_leaves_the_choice_to_be_made() -> None:
    script = (
        "import sys\nimport kronos_api.telemetry.multiprocess\n"
        "assert not [name for name in sys.modules if name.startswith('prometheus_client')]"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
