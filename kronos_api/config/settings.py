"""All settings with their defaults and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from kronos_api.checkpoints.registry import tokenizer_of
from kronos_api.config.agreement import contradictions
from kronos_api.config.callers import CallerSettings
from kronos_api.limits import MAX_HORIZON, MAX_TEMPERATURE, MAX_TOP_K


class Settings(CallerSettings):
    """All settings with their defaults and bounds; frozen once read."""

    model_id: str | None = None
    """Model as hub id, optionally with @revision, or folder; unset: the bundled demonstration."""
    tokenizer_id: str | None = None
    """Tokenizer, named as the model is; unset: the one a published model was trained with."""
    model_path: Path | None = None
    """Folder that holds model/ and tokenizer/, instead of MODEL_ID and TOKENIZER_ID."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")
    """Where the model runs: auto, cpu, cuda or cuda:<number>."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision of the model: float32, bfloat16 or int8; int8 falls back if it is not exact."""
    max_context: int | None = Field(default=None, ge=2, le=4096)
    """Longest window the model sees, in candles; unset: as the model was trained."""
    window_policy: Literal["anchor", "exact"] = "anchor"
    """When history and horizon exceed the window: anchor (fast) or exact (slides each step)."""
    torch_threads: int | None = Field(default=None, ge=1, le=1024)
    """PyTorch threads per worker; unset: the usable cores, divided by the workers."""
    clip_value: float = Field(default=5.0, gt=0, le=100, allow_inf_nan=False)
    """Normalised candles are clipped to plus and minus this."""

    default_pred_len: int = Field(default=120, ge=1, le=MAX_HORIZON)
    """Forecast steps when a request names none."""
    default_temperature: float = Field(default=1.0, ge=0, le=MAX_TEMPERATURE, allow_inf_nan=False)
    """Sampling temperature when a request names none; 0 is greedy."""
    default_top_k: int = Field(default=0, ge=0, le=MAX_TOP_K)
    """Top-k of sampling when a request names none; 0 keeps all tokens."""
    default_top_p: float = Field(default=0.9, gt=0, le=1)
    """Top-p of sampling when a request names none; 1 keeps all tokens."""
    default_sample_count: int = Field(default=1, ge=1, le=1024)
    """Sample paths of a series when a request names no number."""

    max_request_size_mb: float = Field(default=10, gt=0, le=1024, allow_inf_nan=False)
    """Largest request body, in MiB."""
    body_memory_mb: int = Field(default=256, ge=1, le=1_048_576)
    """Memory for bodies of requests in progress, in MiB, of all workers; a caller has half."""
    kv_cache_mb: int = Field(default=1024, ge=16, le=1_048_576)
    """Memory of the KV cache, in MiB, of all workers together; series that do not fit wait."""
    max_queue: int = Field(default=64, ge=1, le=100_000)
    """Series that wait for the model, at most, of all workers together; more get 503."""
    max_batch_items: int = Field(default=64, ge=1, le=1024)
    """Series of one batch, at most; not above MAX_QUEUE; one above a worker's share waits alone."""
    max_samples: int = Field(default=64, ge=1, le=1024)
    """Sample paths of one series, at most."""
    max_decode_steps: int = Field(default=32_768, ge=1, le=100_000_000)
    """Decode steps of a request: sample paths x forecast steps, summed over its series."""

    rate_limit_enabled: bool = True
    """Whether the forecasts and the other requests of each caller are limited."""
    rate_limit_per_minute: int = Field(default=100, ge=1, le=10_000_000)
    """Forecasts of a caller in a minute, over all routes, workers and replicas."""
    rate_limit_other_per_minute: int = Field(default=300, ge=1, le=10_000_000)
    """Requests of a caller to a worker in a minute that are neither forecasts nor probes."""
    rate_limits: str | None = None
    """Further limits of single routes, such as: batch=10/minute;200/hour, single=2/second."""
    rate_limit_batch: Literal["items", "request", "decode_steps"] = "items"
    """What counts as one: items (a series), request, or decode_steps (1,024 of a series)."""
    rate_limit_dir: Path | None = None
    """Folder of the count that a host's workers share; unset: /dev/shm, else a temporary one."""
    redis_url: SecretStr | None = None
    """Redis that all workers and replicas share: for the rate limit, and for CACHE=redis."""
    replicas: int = Field(default=1, ge=1, le=10_000)
    """Replicas that share REDIS_URL; while it is down, a worker grants limit/replicas/workers."""

    cache: Literal["off", "memory", "redis"] = "off"
    """Where responses to seeded requests and to idempotency keys are kept: off, memory, redis."""
    cache_mb: int = Field(default=64, ge=1, le=1_048_576)
    """Memory of CACHE=memory per worker, in MiB."""
    cache_ttl: float = Field(default=3600, ge=1, le=604_800, allow_inf_nan=False)
    """Seconds that a response is kept."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if broken := contradictions(self):
            raise ValueError("; ".join(broken))
        return self

    @property
    def model_source(self) -> str | None:
        """Hub id or folder of the model; None: bundled."""
        if self.model_path is not None:
            return str(self.model_path / "model")
        return self.model_id

    @property
    def tokenizer_source(self) -> str | None:
        """Hub id or folder of the tokenizer; None: bundled."""
        if self.model_path is not None:
            return str(self.model_path / "tokenizer")
        if self.model_id is None:
            return None
        return self.tokenizer_id or tokenizer_of(self.model_id)

    @property
    def max_request_bytes(self) -> int:
        """Largest request body in bytes."""
        return int(self.max_request_size_mb * 2**20)
