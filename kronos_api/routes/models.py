"""The loaded checkpoints, and the name and build of the service."""

from __future__ import annotations

from fastapi import APIRouter, Request

from kronos_api.build_info import Build
from kronos_api.checkpoints.info import Part
from kronos_api.errors import ModelNotReady
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.other_routes import Limited
from kronos_api.routes import inference_protocol
from kronos_api.schemas.responses import LIMITED
from kronos_api.schemas.status import ModelDescription, PartDescription, Welcome


def router(predictor: AsyncPredictor, app_name: str, build: Build, limited: Limited) -> APIRouter:
    """`/v1/models`, `/` and `/v2/…`."""
    routes = APIRouter(tags=["about"])

    @routes.get("/v1/models", responses=LIMITED)
    @limited
    async def models(request: Request) -> ModelDescription:
        """The loaded model and tokenizer."""
        del request
        info = predictor.info
        if info is None:
            raise ModelNotReady(
                "No model is loaded yet. Retry when /v1/readyz answers 200.", retry_after=1
            )
        return ModelDescription(
            model=_described(info.model),
            tokenizer=_described(info.tokenizer),
            context_length=info.max_context,
            dtype=info.dtype,
            device=info.device,
            device_warning=info.device_warning,
            demo=info.demo,
        )

    @routes.get("/", responses=LIMITED)
    @limited
    async def root(request: Request) -> Welcome:
        """The name and the build of the service."""
        del request
        return Welcome(message=app_name, version=build.version, commit=build.commit)

    inference_protocol.add_metadata(routes, predictor, app_name, build, limited)
    return routes


def _described(part: Part) -> PartDescription:
    return PartDescription(
        id=part.id, revision=part.revision, sha256=part.sha256, parameters=part.parameters
    )
