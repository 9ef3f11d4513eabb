"""Health and metadata under the paths of the Open Inference Protocol, version 2.

Tools that probe or list inference servers know these paths. Forecasts have routes of their own,
because candles with timestamps are not tensors.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response

from kronos_api.build_info import Build
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.errors import ModelNotReady, NotFound
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.other_routes import Limited
from kronos_api.schemas.inference_protocol import (
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from kronos_api.schemas.responses import LIMITED, ErrorResponse
from kronos_api.timeseries.features import FIELDS

NAMED: Final[dict[int | str, dict[str, Any]]] = {
    **LIMITED,
    404: {"model": ErrorResponse, "description": "NOT_FOUND: the loaded model has another name"},
    422: {"model": ErrorResponse, "description": "VALIDATION_ERROR"},
    503: {"model": ErrorResponse, "description": "MODEL_NOT_READY, CALLER_UNKNOWN"},
}

LONGEST: Final = 128
"""Characters of an unknown name that an error repeats."""
Name = Annotated[str, Path(description="Last part of the id in `/v1/models`.")]


def add_health(routes: APIRouter, predictor: AsyncPredictor) -> None:
    """Add `/v2/health/live` and `/v2/health/ready`."""

    @routes.get("/v2/health/live", name="inference_protocol_live")
    async def live() -> Live:
        """200 while the process lives."""
        return Live(live=True)

    @routes.get(
        "/v2/health/ready", name="inference_protocol_ready", responses={503: {"model": Ready}}
    )
    async def ready(response: Response) -> Ready:
        """200 while forecasts are accepted, else 503."""
        accepts = predictor.readiness == "ready"
        response.status_code = 200 if accepts else 503
        return Ready(ready=accepts)


def add_metadata(
    routes: APIRouter, predictor: AsyncPredictor, app_name: str, build: Build, limited: Limited
) -> None:
    """Add `/v2`, `/v2/models/{name}` and `/v2/models/{name}/ready`."""

    @routes.get("/v2", name="inference_protocol_server", responses=LIMITED)
    @limited
    async def server(request: Request) -> ServerMetadata:
        """The name and version of the service."""
        del request
        return ServerMetadata(name=app_name, version=build.version, extensions=[])

    @routes.get("/v2/models/{name}", name="inference_protocol_model", responses=NAMED)
    @limited
    async def model(request: Request, name: Name) -> ModelMetadata:
        """The loaded model, by the last part of its id."""
        del request
        info = _loaded(predictor, name)
        candles = [TensorMetadata(name="candles", datatype="FP64", shape=[-1, len(FIELDS)])]
        forecast = [TensorMetadata(name="prediction", datatype="FP64", shape=[-1, len(FIELDS)])]
        return ModelMetadata(
            name=name,
            versions=[info.model.version],
            platform="kronos_api",
            inputs=candles,
            outputs=forecast,
        )

    @routes.get(
        "/v2/models/{name}/ready",
        name="inference_protocol_model_ready",
        responses=NAMED | {503: NAMED[503] | {"model": ModelReady | ErrorResponse}},
    )
    @limited
    async def model_ready(request: Request, response: Response, name: Name) -> ModelReady:
        """200 while the model takes forecasts, else 503."""
        del request
        _loaded(predictor, name)
        accepts = predictor.readiness == "ready"
        response.status_code = 200 if accepts else 503
        return ModelReady(name=name, ready=accepts)


def _loaded(predictor: AsyncPredictor, name: str) -> ModelInfo:
    info = predictor.info
    if info is None:
        raise ModelNotReady(
            "No model is loaded yet. Retry when /v2/health/ready answers 200.", retry_after=1
        )
    known = info.model.id.rpartition("/")[2]
    if name != known:
        raise NotFound(
            f"No model {name[:LONGEST]!r}: the loaded model is {known!r}, see /v1/models."
        )
    return info
