"""`kronos-api` around an engine that sleeps for every candle instead of decoding it.

For tests of real processes that need forecasts which take long, and no processor time:
`python -m tests.paced_service SECONDS serve`, with the seconds of one candle.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence as Several
from functools import partial

from kronos_api.cli import main
from kronos_api.engine import build
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence
from tests.fakes import FakeSequence, SleepyEngine


class PacedEngine(SleepyEngine):
    """Takes a step a candle."""

    def start(self, request: ForecastRequest) -> FakeSequence:
        run = super().start(request)
        run.steps = request.horizon
        return run

    def step(self, sequences: Several[Sequence]) -> None:
        super().step([run for run in sequences if not run.ended])


def build_engine(seconds: float, *_: object, **__: object) -> PacedEngine:
    return PacedEngine(seconds=seconds, steps=1)


if __name__ == "__main__":
    # `serve` imports kronos_api.lifecycle, which takes this name from the module.
    build.build_engine = partial(build_engine, float(sys.argv.pop(1)))
    main()
