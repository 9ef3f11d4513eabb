"""`kronos-api` around an engine that sleeps for every candle instead of decoding it.

For tests of real processes that need forecasts which take long, and no processor time. The model's
revision is the process id of the worker. It loads for as long as the file PACED_STALLED exists.

`python -m tests.paced_service SECONDS serve`, with the seconds of one candle.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence as Several
from dataclasses import replace
from functools import partial
from pathlib import Path

from kronos_api.cli import main
from kronos_api.engine import build
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence
from tests.fakes import FAKE_INFO, FakeSequence, SleepyEngine


class PacedEngine(SleepyEngine):
    """Takes a step a candle."""

    def start(self, request: ForecastRequest) -> FakeSequence:
        run = super().start(request)
        run.steps = run.total_steps = request.horizon
        return run

    def step(self, sequences: Several[Sequence]) -> None:
        super().step([run for run in sequences if not run.ended])


def build_engine(seconds: float, *_: object, **__: object) -> PacedEngine:
    while Path(os.environ.get("PACED_STALLED", "")).is_file():  # a disk that does not answer
        time.sleep(0.05)
    model = replace(FAKE_INFO.model, revision=str(os.getpid()))
    return PacedEngine(seconds=seconds, steps=1, info=replace(FAKE_INFO, model=model))


if __name__ == "__main__":
    # `serve` imports kronos_api.lifecycle, which takes this name from the module.
    build.build_engine = partial(build_engine, float(sys.argv.pop(1)))
    main()
