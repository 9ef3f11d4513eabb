"""Which tests one process of several runs: `-n 2 --dist loadfile`.

The marker `xdist_group` would be simpler, but pytest 9.2 ignores the group that xdist 3.8 adds to
the ids of tests.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

STUBS = "tests/integration/test_production_deploy.py"
"""Waits for containers most of the time."""


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """A module is run by one process, which sets up its fixtures once.

    So are all tests of `tests/integration` that share the images of the service, which compute;
    those with a stub in its place run beside them.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        shared = path.startswith("tests/integration/") and path != STUBS
        return "tests/integration" if shared else path
