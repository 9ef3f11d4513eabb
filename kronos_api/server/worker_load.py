"""The load of each worker, in memory that all of them map.

A connection stays with the worker that accepts it, and with it all requests that its client sends.
So the worker with the least load accepts, and one with more load than another closes connections
after their response, whose clients then connect again.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from kronos_api.server.draining import Drainable

LOAD: Final = "load"
"""Name of this worker's load in the state of its connections."""
ENTRIES: Final = 4096
"""Workers of one master with entries of their own: more than live at once, with replacements."""
UNREADY: Final = 1 << 20
"""Load that a worker adds while it refuses forecasts: otherwise the one that refuses them fastest
would get all of them."""
UNEVEN: Final = 2
"""Load above the least, from which one request less here and one more there is more even."""


class LoadTable:
    """One entry for each worker; made by the master before it forks them.

    An entry is written whole, by its worker alone, so no lock is needed.
    """

    def __init__(self) -> None:
        # 0: the worker accepts no connections; otherwise its load + 1.
        self._entries = np.frombuffer(mmap.mmap(-1, 4 * ENTRIES), np.uint32)

    def write(self, number: int, load: int | None) -> None:
        """Set the load of worker `number`; None: it accepts no connections."""
        self._entries[number % ENTRIES] = 0 if load is None else load + 1

    def least(self, but: int) -> int | None:
        """The least load of the workers that accept, `but` one; None if there are none."""
        # A copy, because other workers write meanwhile: NumPy raises if entries become 0 or are no
        # longer while it looks for those that are not.
        entries = self._entries.copy()
        entries[but % ENTRIES] = 0
        accepting = entries[entries > 0]
        return int(accepting.min()) - 1 if accepting.size else None


class WorkerLoad:
    """The load of worker `number`: its requests in progress, or the series of its forecasts.

    A connection whose first request has not arrived counts as one. Without a `table` there are no
    other workers.
    """

    def __init__(self, table: LoadTable | None = None, number: int = 0) -> None:
        self.service: Drainable | None = None
        """Knows the series that wait or are in the engine: a batch is one request of many."""
        self._table = table
        self._number = number
        self._busy: set[object] = set()
        self._accepts = False

    @property
    def own(self) -> int:
        """The load of this worker."""
        if self.service is None:
            return len(self._busy)
        load = max(len(self._busy), self.service.forecasts)
        return load if self.service.state == "ready" else load + UNREADY

    @property
    def excess(self) -> int:
        """Load of this worker above the least of the others, which may be below 0; 0 if alone."""
        least = self._table.least(self._number) if self._table is not None else None
        return 0 if least is None else self.own - least

    @property
    def uneven(self) -> bool:
        """Whether the load would be more even with one request less here."""
        return self.excess >= UNEVEN

    def note(self, connection: object, *, busy: bool) -> None:
        """Count `connection` if it is `busy`: if it has a request in progress, or its first due."""
        (self._busy.add if busy else self._busy.discard)(connection)
        self.publish()

    def publish(self) -> None:
        """Show the load to the other workers, if this one accepts connections."""
        if self._accepts and self._table is not None:
            self._table.write(self._number, self.own)

    def accept(self) -> None:
        """This worker accepts connections from here on."""
        self._accepts = True
        self.publish()

    def withdraw(self) -> None:
        """This worker accepts no more connections, or has ended."""
        self._accepts = False
        if self._table is not None:
            self._table.write(self._number, None)
