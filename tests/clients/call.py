"""Type-checked against the generated package, then run: python call.py URL."""

import json
import sys
from datetime import UTC, datetime

from generated_client import Client
from generated_client.api.health import readyz
from generated_client.api.predict import predict_batch, predict_single
from generated_client.models import (
    BatchItem,
    BatchRequest,
    Columns,
    ErrorResponse,
    Overrides,
    PredictRequest,
    PredictResponse,
    Readiness,
)

client = Client(base_url=sys.argv[1])
candles = Columns(
    open_=[101.2, 101.9, 101.4],
    high=[102.0, 102.1, 101.8],
    low=[101.0, 101.3, 100.9],
    close=[101.9, 101.4, 101.1],
)
timestamps = [datetime(2025, 6, 2, 9, minute, tzinfo=UTC) for minute in (0, 15, 30)]
overrides = Overrides(sample_count=10, seed=7)
single = predict_single.sync(
    client=client,
    body=PredictRequest(
        candles=candles,
        timestamps=timestamps,
        horizon=2,
        quantile_levels=[0.5],
        overrides=overrides,
    ),
)
assert isinstance(single, PredictResponse)
batch = predict_batch.sync(
    client=client,
    body=BatchRequest(
        items=[BatchItem(series_id="a", candles=candles, timestamps=timestamps, horizon=2)]
    ),
)
assert isinstance(batch, list)
refused = predict_single.sync(
    client=client, body=PredictRequest(candles=candles, timestamps=timestamps, horizon=0)
)
assert isinstance(refused, ErrorResponse)
ready = readyz.sync(client=client)
assert isinstance(ready, Readiness)
json.dump(
    {
        "close": [candle.close for candle in single.prediction],
        "median": single.to_dict()["quantiles"]["0.5"]["close"],
        "series": [response.series_id for response in batch],
        "code": refused.error.code.value,
        "ready": ready.status.value,
    },
    sys.stdout,
)
