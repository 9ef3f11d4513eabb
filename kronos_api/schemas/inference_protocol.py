"""Responses under the paths of the Open Inference Protocol."""

from __future__ import annotations

from kronos_api.schemas.responses import ResponseModel


class Live(ResponseModel):
    """The process is alive."""

    live: bool


class Ready(ResponseModel):
    """Whether the service takes forecasts."""

    ready: bool


class ModelReady(ResponseModel):
    """Whether the model takes forecasts."""

    name: str
    ready: bool


class ServerMetadata(ResponseModel):
    """The service."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(ResponseModel):
    """Candles as a tensor; -1 stands for any number of them."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(ResponseModel):
    """The loaded model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
