"""Where a forecast's time goes: phases, batches, KV cache, tokens."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panel import Panel, of, quantile, total

MODEL: Final = (
    Panel(
        "Time by phase",
        "s",
        "Mean time of a series in each phase: which one makes forecasts slow.",
        {
            "{{phase}}": f"{total('kronos_phase_seconds_sum', 'phase')}"
            f" / {total('kronos_phase_seconds_count', 'phase')}"
        },
    ),
    Panel(
        "Queue",
        "none",
        "Series that wait for the model, and how many may.",
        {
            "waiting": f"sum({of('kronos_queue_depth')})",
            "limit": f"sum({of('kronos_queue_limit')})",
        },
    ),
    Panel(
        "Wait and inference, 95th percentile",
        "s",
        "A long wait asks for more replicas, a long inference for fewer samples or steps.",
        {
            "wait": quantile(0.95, of("kronos_queue_wait_seconds_bucket")),
            "inference": quantile(0.95, of("kronos_model_inference_seconds_bucket")),
        },
    ),
    Panel(
        "Series in the model",
        "none",
        "Series that are decoded together.",
        {"{{instance}}": f"sum by (instance) ({of('kronos_active_series')})"},
    ),
    Panel(
        "Sample paths of a decode step",
        "none",
        "Mean size of a batch; larger batches decode more candles a second.",
        {
            "mean": f"{total('kronos_decode_batch_size_sum')}"
            f" / {total('kronos_decode_batch_size_count')}"
        },
    ),
    Panel(
        "KV cache",
        "bytes",
        "Keys and values reserved, and the limit KRONOS_KV_CACHE_MB; series that do not fit wait.",
        {
            "reserved": f"sum({of('kronos_kv_cache_bytes')})",
            "limit": f"sum({of('kronos_kv_cache_limit_bytes')})",
        },
    ),
    Panel(
        "Candles decoded",
        "ops",
        "Candles a second: forecast steps times sample paths.",
        {"{{instance}}": total("kronos_candles_decoded_total", "instance")},
    ),
    Panel(
        "Tokens decoded",
        "ops",
        "Tokens a second, two for each candle.",
        {"{{instance}}": total("kronos_decode_tokens_total", "instance")},
    ),
    Panel(
        "History of a series",
        "none",
        "Candles that callers send for a series.",
        {
            "median": quantile(0.5, of("kronos_prediction_input_size_bucket")),
            "p95": quantile(0.95, of("kronos_prediction_input_size_bucket")),
        },
    ),
    Panel(
        "Failures and timeouts",
        "ops",
        "Forecasts that failed in the model, and those that missed their deadline.",
        {
            "failures": total("kronos_engine_failures_total"),
            "timeouts {{endpoint}}": total("kronos_timeouts_total", "endpoint"),
        },
    ),
)
