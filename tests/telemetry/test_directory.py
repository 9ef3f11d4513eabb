"""The directory of the workers' metrics: created, distinguished from others, removed at the end."""

from __future__ import annotations

from pathlib import Path

from tests.telemetry.counting import CREATE, created, creating, files


def test_leftovers_of_a_killed_service_are_removed_by_the_next(tmp_path: Path) -> None:
    with creating(tmp_path) as killed:
        left = created(killed)
        killed.kill()
    (tmp_path / "another.db").touch()
    with creating(tmp_path) as service:
        assert created(service).is_dir()
        assert not left.exists()
        service.communicate()
        assert service.returncode == 0
    assert files(tmp_path) == {"another.db"}


def test_two_services_of_one_host_have_a_directory_each(tmp_path: Path) -> None:
    with creating(tmp_path) as first, creating(tmp_path) as second:
        directories = created(first), created(second)
        assert directories[0] != directories[1]
        assert all((directory / "counter_1.db").stat().st_size for directory in directories)
        for service in (first, second):
            service.communicate()


def test_directory_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with creating(tmp_path) as service:
        assert created(service).stat().st_mode & 0o777 == 0o700
        service.communicate()


def test_second_call_returns_the_same_directory(tmp_path: Path) -> None:
    twice = CREATE + "assert create_directory(None) == create_directory(Path('/nowhere'))\n"
    with creating(tmp_path, twice) as service:
        _, errors = service.communicate()
    assert (service.returncode, errors) == (0, "")


def test_end_of_a_forked_process_leaves_the_directory(tmp_path: Path) -> None:
    forking = CREATE + (
        "import os\ndirectory = create_directory(None)\nif os.fork() == 0:\n    sys.exit()\n"
        "os.wait()\nassert (directory / 'lock').exists()\n"
    )
    with creating(tmp_path, forking) as service:
        _, errors = service.communicate()
    assert (service.returncode, errors) == (0, "")
    assert not files(tmp_path)


def test_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with creating(tmp_path / "file" / "directory") as service:
        output, errors = service.communicate()
    assert (service.returncode, output) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith(f"cannot write metrics to {tmp_path}/file/directory: not a directory")
    assert "KRONOS_METRICS_DIR" in line


def test_space_is_reserved_at_the_start(tmp_path: Path) -> None:
    small = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
    with creating(tmp_path, small + CREATE) as service:
        _, errors = service.communicate()
    assert service.returncode == 1
    assert errors.startswith(f"cannot write metrics to {tmp_path}: file too large")
    assert not files(tmp_path)
