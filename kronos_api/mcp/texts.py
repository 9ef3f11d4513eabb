"""Short texts about results, for clients that show an agent only those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

ROWS: Final = 24
"""Rows of a text at most."""
FIELDS: Final = ("open", "high", "low", "close", "volume")

Json = Mapping[str, Any]


def forecast_text(forecast: Json) -> str:
    """The range of a forecast, up to `ROWS` of its candles as CSV, its summary and its warnings.

    Quantiles of the close are columns of the CSV.
    """
    candles = forecast["prediction"]
    first, last = candles[0], candles[-1]
    series = f" of {forecast['series_id']}" if forecast["series_id"] else ""
    shown = _spread(len(candles))
    quantiles = forecast.get("quantiles") or {}
    lines = [
        f"Forecast{series}: {len(candles)} steps from {first['timestamp']} to"
        f" {last['timestamp']}, the mean over the sample paths. Close {_number(first['close'])} to"
        f" {_number(last['close'])}, lowest {_number(min(one['low'] for one in candles))}, highest"
        f" {_number(max(one['high'] for one in candles))}. Seed {forecast['seed']}, model"
        f" {forecast['model_version']}.",
        ",".join(("timestamp", *FIELDS, *(f"close-q-{level}" for level in quantiles))),
    ]
    for step in shown:
        numbers = [candles[step][name] for name in FIELDS]
        numbers += [quantile["close"][step] for quantile in quantiles.values()]
        lines.append(",".join((candles[step]["timestamp"], *map(_number, numbers))))
    if len(shown) < len(candles):
        lines.append(f"{len(shown)} of {len(candles)} steps; structuredContent has all.")
    if forecast.get("summary"):
        lines.append(_summary_line(forecast["summary"]))
    lines += [f"{one['code']}: {one['message']}" for one in forecast["warnings"]]
    return "\n".join(lines)


def calendars_text(listed: Json) -> str:
    """Code, aliases, name, zone and hours of up to `ROWS` calendars."""
    calendars = listed["calendars"]
    if not calendars:
        return "No calendar matches. Leave out `search` to list all."
    lines = [_calendar_line(one) for one in calendars[:ROWS]]
    if len(calendars) > ROWS:
        lines.append(f"{ROWS} of {len(calendars)} calendars; structuredContent has all.")
    return "\n".join(lines)


def models_text(models: Json) -> str:
    """The loaded model and what it sees."""
    demo = " It is the bundled demonstration: not for trading." if models["demo"] else ""
    return (
        f"Model {models['model']['id']}, tokenizer {models['tokenizer']['id']}:"
        f" {models['context_length']} candles of context, {models['dtype']} on"
        f" {models['device']}.{demo}"
    )


def error_text(error: Json) -> str:
    """Code and message of an error, and all rules that the arguments break if they are several."""
    rules = list(_rules(error["details"]))
    return "\n".join([f"{error['code']}: {error['message']}", *(rules if len(rules) > 1 else ())])


def _rules(details: Sequence[Json]) -> Iterator[str]:
    for detail in details[:ROWS]:
        if "constraint" in detail:
            index = detail.get("index")
            place = "" if index is None else f"[{index}]"
            yield f"{detail['field']}{place}: {detail['constraint']}"


def _calendar_line(calendar: Json) -> str:
    hours = calendar["hours"]
    aliases = f" ({', '.join(calendar['aliases'])})" if calendar["aliases"] else ""
    return (
        f"{calendar['code']}{aliases}: {calendar['name']}, {hours['open']} to {hours['close']}"
        f" {calendar['time_zone']}"
    )


def _summary_line(summary: Json) -> str:
    """What the paths risk until the last step."""
    last = {name: _number(summary[name][-1]) for name in ("p_up", "expected_return", "volatility")}
    drawdown = summary["max_drawdown"]
    named = last | {
        "var_95": _number(summary["var_95"]),
        "es_95": _number(summary["es_95"]),
        "max_drawdown": f"{_number(drawdown['median'])} (95 %: {_number(drawdown['p95'])})",
    }
    touched = [
        f"{_number(one['level'])}: {_number(one['probability'])}" for one in summary["p_touch"]
    ]
    named |= {"p_touch": ", ".join(touched)} if touched else {}
    return "Until the last step: " + "; ".join(f"{name} {value}" for name, value in named.items())


def _spread(count: int) -> list[int]:
    """Up to `ROWS` of `count` steps at even distances, the first and the last among them."""
    if count <= ROWS:
        return list(range(count))
    return [n * (count - 1) // (ROWS - 1) for n in range(ROWS)]


def _number(value: float) -> str:
    return f"{value:.6g}"
