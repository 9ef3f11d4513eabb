"""Rules between settings: bounds that depend on the value of another setting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kronos_api.checkpoints.registry import tokenizer_of
from kronos_api.config.serving import LAST_STEPS
from kronos_api.limits import LEAST_TEMPERATURE

if TYPE_CHECKING:
    from kronos_api.config.settings import Settings

Rule = tuple[bool, str]
"""Whether a rule holds, and the message if it does not."""


def contradictions(settings: Settings) -> list[str]:
    """The message of each rule that `settings` break."""
    rules = (*_of_checkpoints(settings), *_of_callers(settings), *_of_times(settings))
    rules = (*rules, *_of_amounts(settings))
    return [message for holds, message in rules if not holds]


def _of_checkpoints(settings: Settings) -> Iterator[Rule]:
    model, tokenizer = settings.model_id, settings.tokenizer_id
    yield (
        settings.model_path is None or not (model or tokenizer),
        "KRONOS_MODEL_PATH excludes KRONOS_MODEL_ID and KRONOS_TOKENIZER_ID: unset it, or both",
    )
    yield (
        model is not None or tokenizer is None,
        "KRONOS_TOKENIZER_ID needs KRONOS_MODEL_ID, such as NeoQuasar/Kronos-small",
    )
    yield (
        model is None or tokenizer is not None or tokenizer_of(model) is not None,
        "KRONOS_MODEL_ID needs KRONOS_TOKENIZER_ID, because it names no published model",
    )


def _of_callers(settings: Settings) -> Iterator[Rule]:
    needed = {
        "KRONOS_SERVICE_ACCOUNT_AUDIENCE": settings.service_account_audience,
        "KRONOS_SERVICE_ACCOUNT_ISSUER": settings.service_account_issuer,
        "KRONOS_SERVICE_ACCOUNT_JWKS": settings.service_account_jwks,
    }
    missing = [name for name, value in needed.items() if value is None]
    yield (
        len(missing) in (0, len(needed)),
        f"{', '.join(needed)} are set together: set {' and '.join(missing)} too, or none",
    )
    optional = (settings.service_account_ca_file, settings.service_account_token_file)
    yield (
        not missing or optional == (None, None),
        "KRONOS_SERVICE_ACCOUNT_CA_FILE and KRONOS_SERVICE_ACCOUNT_TOKEN_FILE need"
        f" {', '.join(needed)}",
    )
    yield (
        not missing or not settings.whitelist.service_accounts,
        f"serviceaccount: entries of KRONOS_CONTAINER_WHITELIST need {', '.join(needed)}",
    )


def _of_times(settings: Settings) -> Iterator[Rule]:
    inference, request = settings.inference_timeout, settings.request_timeout
    shutdown, stop = settings.shutdown_timeout, settings.stop_timeout
    yield (
        inference < request,
        f"KRONOS_INFERENCE_TIMEOUT ({inference:g} s) must be below KRONOS_REQUEST_TIMEOUT "
        f"({request:g} s)",
    )
    yield (
        request < shutdown,
        f"KRONOS_REQUEST_TIMEOUT ({request:g} s) must be below KRONOS_SHUTDOWN_TIMEOUT "
        f"({shutdown:g} s)",
    )
    yield (
        math.ceil(shutdown) + LAST_STEPS <= stop,
        f"KRONOS_SHUTDOWN_TIMEOUT ({shutdown:g} s) must be at least {LAST_STEPS} s below "
        f"GUNICORN_GRACEFUL_TIMEOUT ({stop} s)",
    )


def _of_amounts(settings: Settings) -> Iterator[Rule]:
    items, queue = settings.max_batch_items, settings.max_queue
    yield (
        items <= queue,
        f"KRONOS_MAX_BATCH_ITEMS ({items}) must be at most KRONOS_MAX_QUEUE ({queue})",
    )
    body, memory = settings.max_request_size_mb, settings.body_memory_mb
    yield (
        body <= memory / 2,
        f"KRONOS_MAX_REQUEST_SIZE_MB ({body:g}) must be at most half of KRONOS_BODY_MEMORY_MB "
        f"({memory}), the share of one caller",
    )
    yield (
        settings.default_temperature == 0 or settings.default_temperature >= LEAST_TEMPERATURE,
        f"KRONOS_DEFAULT_TEMPERATURE ({settings.default_temperature:g}) must be 0 (greedy) or at "
        f"least {LEAST_TEMPERATURE}",
    )
    yield (
        settings.cache != "redis" or settings.redis_url is not None,
        "KRONOS_CACHE=redis needs KRONOS_REDIS_URL, such as redis://redis:6379/0",
    )
    paths, steps = settings.default_sample_count, settings.default_pred_len
    yield (
        paths <= settings.max_samples,
        f"KRONOS_DEFAULT_SAMPLE_COUNT ({paths}) must be at most KRONOS_MAX_SAMPLES "
        f"({settings.max_samples})",
    )
    yield (
        paths * steps <= settings.max_decode_steps,
        f"KRONOS_DEFAULT_SAMPLE_COUNT x KRONOS_DEFAULT_PRED_LEN ({paths} x {steps}) must be at "
        f"most KRONOS_MAX_DECODE_STEPS ({settings.max_decode_steps})",
    )
