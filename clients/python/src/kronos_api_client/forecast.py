"""A forecast: its frame, and what the service says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kronos_api_client.errors import KronosError
from kronos_api_client.frames import FrameBackend
from kronos_api_client.messages import Answer
from kronos_api_client.series import Frame, Series, forecast_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FrameT = TypeVar("FrameT", bound=Frame)


@dataclass(frozen=True, slots=True)
class Warning:
    """A reason to look at a forecast twice. Decide by `code`."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Summary:
    """Risk over the sample paths. Returns are simple, since the last close of the history.

    Attributes:
        p_up: Share of the paths whose close is above the last close, for each step.
        expected_return: Mean return, for each step.
        volatility: Standard deviation of the log return, for each step; not annualised.
        var_95: Loss at the last step that 5 % of the paths exceed; negative where they gain.
        es_95: Mean loss of the paths that lose at least `var_95`.
        max_drawdown_median: Largest fall of the close below its peak, median of the paths.
        max_drawdown_p95: The fall that 5 % of the paths exceed.
        p_touch: Level → share of the paths that reach it.
    """

    p_up: tuple[float, ...]
    expected_return: tuple[float, ...]
    volatility: tuple[float, ...]
    var_95: float
    es_95: float
    max_drawdown_median: float
    max_drawdown_p95: float
    p_touch: Mapping[float, float]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Summary:
        """The `summary` of a response."""
        return cls(
            p_up=tuple(content["p_up"]),
            expected_return=tuple(content["expected_return"]),
            volatility=tuple(content["volatility"]),
            var_95=content["var_95"],
            es_95=content["es_95"],
            max_drawdown_median=content["max_drawdown"]["median"],
            max_drawdown_p95=content["max_drawdown"]["p95"],
            p_touch={touch["level"]: touch["probability"] for touch in content["p_touch"]},
        )


@dataclass(frozen=True, slots=True)
class Forecast(Generic[FrameT]):
    """The forecast of one series.

    Attributes:
        frame: One row a step, of the same kind as the history: the mean over the sample paths, then
            quantiles as `close-q-0.1`, sample paths as `close-s-0`, and the summary's `p_up`,
            `expected_return` and `volatility`.
        series_id: As the caller gave it.
        seed: The same request with this seed has the same forecast.
        warnings: Reasons to look at it twice.
        model_version: Checkpoint of the model.
        tokenizer_version: Checkpoint of the tokenizer.
        context_used: Candles of the history that the model has seen.
        repaired: Numbers that `repair` changed.
        timings_ms: Milliseconds in the service: `queue`, `inference`, `total`.
        demo: Whether the bundled demonstration checkpoint answered: nothing to trade on.
        request_id: The service's id of the request.
        response: The whole response.
        summary: Risk over the sample paths, if it was asked for.
    """

    frame: FrameT
    series_id: object
    seed: int
    warnings: tuple[Warning, ...]
    model_version: str
    tokenizer_version: str
    context_used: int
    repaired: int
    timings_ms: Mapping[str, float]
    demo: bool
    request_id: str | None
    response: Mapping[str, Any]
    summary: Summary | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """All but frame and response, in types that JSON has; pandas: `frame.attrs["kronos"]`."""
        return _metadata(self.response, self.series_id, self.request_id)

    def plot(
        self, history: FrameT | None = None, *, field: str = "close", ax: Axes | None = None
    ) -> Axes:
        """Draw `field` of the forecast after its history, with the quantiles as a fan."""
        from kronos_api_client.plotting import plot

        return plot(self.frame, history, field=field, ax=ax)


def _metadata(
    response: Mapping[str, Any], series_id: object, request_id: str | None
) -> dict[str, Any]:
    left_out = ("prediction", "quantiles", "samples")
    metadata = {name: value for name, value in response.items() if name not in left_out}
    return metadata | {"series_id": series_id, "request_id": request_id}


def read_forecast(answer: Answer, series: Series, backend: FrameBackend) -> Forecast[Any]:
    """The forecast of `series` in `answer`; raises `KronosError` for a response without one."""
    response = answer.content
    try:
        frame = series.write(
            [step["timestamp"] for step in response["prediction"]], forecast_columns(response)
        )
        metadata = _metadata(response, series.series_id, answer.request_id)
        backend.set_metadata(frame, metadata)
        return Forecast(
            frame=frame,
            series_id=series.series_id,
            seed=response["seed"],
            warnings=tuple(Warning(one["code"], one["message"]) for one in response["warnings"]),
            model_version=response["model_version"],
            tokenizer_version=response["tokenizer_version"],
            context_used=response["context_used"],
            repaired=response["repaired"],
            timings_ms=response["timings_ms"],
            demo=response["demo"],
            request_id=answer.request_id,
            response=response,
            summary=Summary.of(summary) if (summary := response.get("summary")) else None,
        )
    except (LookupError, TypeError) as error:
        raise KronosError(
            f"the response is no forecast of Kronos API: {type(error).__name__} {error}",
            code="UNEXPECTED_RESPONSE",
            status=200,
            request_id=answer.request_id,
        ) from error
