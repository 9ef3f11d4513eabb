"""The name of this replica's container, by which operators know it.

Prometheus knows a replica by its address alone. Docker gives a container its short id as host name,
and its name only in DNS, as `<container>.<network>` for its own address.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from typing import Final

from kronos_api.daemon_thread import run_in_daemon_thread
from kronos_api.telemetry.metrics import metrics

_SHORT_ID: Final = re.compile(r"[0-9a-f]{12}")


def record_replica(replicas: int) -> None:
    """Record the name of this replica, and that `replicas` are expected.

    The name is asked for in a daemon thread, because DNS can take seconds to fail.
    """
    metrics.replicas.set(replicas)
    run_in_daemon_thread(_record_name, "replica")


def container_name(
    hostname: str,
    addresses: Callable[[str], Sequence[str]] = lambda name: socket.gethostbyname_ex(name)[2],
    reverse: Callable[[str], str] = lambda address: socket.gethostbyaddr(address)[0],
) -> str:
    """The container's name; `hostname` itself unless that is the short id of a container.

    `addresses` and `reverse` ask DNS, and raise OSError if there is no answer.
    """
    if not _SHORT_ID.fullmatch(hostname):  # a machine, a pod, or `hostname:` of a compose file
        return hostname
    try:
        name, dot, _ = reverse(addresses(hostname)[0]).partition(".")
    except (OSError, IndexError):
        return hostname
    return name if dot else hostname


def _record_name() -> None:
    hostname = socket.gethostname()
    metrics.replica_info.labels(container_name(hostname), hostname).set(1)
