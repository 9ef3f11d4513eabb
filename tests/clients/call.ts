// Type-checked against the generated types, then run: node call.js URL
import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const request: components["schemas"]["PredictRequest"] = {
  candles: {
    open: [101.2, 101.9, 101.4],
    high: [102.0, 102.1, 101.8],
    low: [101.0, 101.3, 100.9],
    close: [101.9, 101.4, 101.1],
  },
  timestamps: ["2025-06-02T09:00:00Z", "2025-06-02T09:15:00Z", "2025-06-02T09:30:00Z"],
  horizon: 2,
  quantile_levels: [0.5],
  overrides: { sample_count: 10, seed: 7 },
};

const single = await client.POST("/v1/predict/single", { body: request });
const batch = await client.POST("/v1/predict/batch", {
  body: { items: [{ ...request, series_id: "a" }] },
});
const refused = await client.POST("/v1/predict/single", { body: { ...request, horizon: 0 } });
const code: components["schemas"]["ErrorBody"]["code"] | undefined = refused.error?.error.code;
const ready = await client.GET("/v1/readyz");

console.log(
  JSON.stringify({
    close: single.data?.prediction.map((candle) => candle.close),
    median: single.data?.quantiles?.["0.5"]?.close,
    series: batch.data?.map((response) => response.series_id),
    code,
    ready: ready.data?.status,
  }),
);
