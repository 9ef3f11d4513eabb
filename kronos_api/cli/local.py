"""Forecasts on this machine, for `kronos-api predict`: the model is loaded once for all files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kronos_api.checkpoints.info import ModelInfo
from kronos_api.cli.console import progress, progress_of
from kronos_api.cli.report import GrowingTable
from kronos_api.config import Settings
from kronos_api.engine.request import ForecastRequest
from kronos_api.files.history import History
from kronos_api.forecast import Forecast
from kronos_api.lifecycle import Checkpoints
from kronos_api.predictor import AsyncPredictor
from kronos_api.timeseries import Continuation

PATIENCE: Final = 3600.0
"""Seconds that a forecast can take at most: there are no other callers."""
TOGETHER: Final = 8
"""Files whose forecasts share the engine's decode steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One file, read and checked, and what is asked of it."""

    path: Path
    history: History
    continued: Continuation
    request: ForecastRequest

    def title(self, info: ModelInfo) -> str:
        """Of its table."""
        return f"{self.path.name}, {info.model.id}, seed {self.request.params.seed}"


class LocalModel:
    """The loaded checkpoint of the settings."""

    def __init__(self, predictor: AsyncPredictor, info: ModelInfo) -> None:
        self._predictor = predictor
        self.info = info

    async def forecast(self, job: Job) -> Forecast:
        """One forecast."""
        with progress("forecasting"):
            return await self._predictor.predict(job.request, timeout=PATIENCE)

    async def forecast_all(self, jobs: Sequence[Job]) -> list[Forecast]:
        """All forecasts, `TOGETHER` at a time, in the order of `jobs`."""
        room = asyncio.Semaphore(TOGETHER)
        with progress_of(len(jobs), "forecasting") as advance:

            async def forecast(job: Job) -> Forecast:
                async with room:
                    done = await self._predictor.predict(job.request, timeout=PATIENCE)
                advance()
                return done

            return await asyncio.gather(*map(forecast, jobs))

    async def stream(self, job: Job) -> Forecast:
        """One forecast, whose rows are printed as they are decoded."""
        future = job.continued.timestamps
        with GrowingTable(job.title(self.info), future, job.request.quantile_levels) as table:
            async for part in self._predictor.stream(job.request, timeout=PATIENCE):
                if not isinstance(part, Forecast):
                    table.add(part)
        assert isinstance(part, Forecast)
        return part


@asynccontextmanager
async def local_model(settings: Settings) -> AsyncIterator[LocalModel]:
    """Load the checkpoint of `settings`, and unload it at the end."""
    checkpoints = Checkpoints(settings)
    predictor = AsyncPredictor(
        checkpoints.load, inference_timeout=PATIENCE, kv_cache_mb=settings.kv_cache_mb
    )
    with progress("loading the model"):
        await asyncio.to_thread(checkpoints.find)
        await predictor.start()
        await predictor.ready()
    assert predictor.info is not None
    try:
        yield LocalModel(predictor, predictor.info)
    finally:
        await predictor.stop()
