"""A service that answers the smoke test at once, without a model: for tests of deploy.sh itself."""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CANDLE = dict.fromkeys(("open", "high", "low", "close", "volume", "amount"), 1.0)
LAST = datetime(2025, 6, 2, 10, 15, tzinfo=UTC)


def forecast(asked: dict[str, Any]) -> dict[str, Any]:
    """As many candles as asked for, each 15 minutes after the one before."""
    times = [LAST + timedelta(minutes=15 * (n + 1)) for n in range(asked["horizon"])]
    candles = [{"timestamp": f"{time:%Y-%m-%dT%H:%M:%SZ}", **CANDLE} for time in times]
    return {"series_id": asked.get("series_id"), "prediction": candles}


class Handler(BaseHTTPRequestHandler):
    """One path each for what the smoke test asks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, 'kronos_requests_total{route="/v1/predict/single"} 1')
        else:
            self.answer(200, {"status": "ok", "model_loaded": True})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            asked = json.loads(body)
        except ValueError:
            known = {"message": "not JSON", "request_id": self.headers["X-Request-ID"]}
            self.answer(400, {"error": {"code": "MALFORMED_JSON", **known}})
            return
        if "items" in asked:
            self.answer(200, {"items": [forecast(item) for item in asked["items"]]})
        else:
            self.answer(200, forecast(asked))

    def answer(self, status: int, body: object) -> None:
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
