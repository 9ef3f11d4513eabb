"""How a process of the service ends."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

from kronos_api.telemetry import logging

NOT_STARTED: Final = 3
"""Exit status of a service that could not start, or could not go on serving; its log says why."""


def exit_at_once(status: int) -> NoReturn:
    """End the process without finalising the interpreter.

    Finalising it while a thread loads a model, computes, or waits for an unresponsive file system
    aborts the process with SIGABRT (status 134).
    """
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
