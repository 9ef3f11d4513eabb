"""Wait until a service is ready, post the example to it and print the forecast.

    python examples/first_forecast.py PID

PID is the server's process; the script ends when that process does. KRONOS_HOST and KRONOS_PORT
are the address of the service. Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

EXAMPLE = Path(__file__).resolve().parent / "request-single.json"
SHOWN = 8
OPENER = build_opener(ProxyHandler({}))  # the service is local: no proxy


def address() -> tuple[str, str]:
    """Host and port at which the service can be reached from this machine."""
    host = os.environ.get("KRONOS_HOST") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return host, os.environ.get("KRONOS_PORT") or "8000"


def listens(host: str, port: str) -> bool:
    """Whether a process listens on the port."""
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False


def state(url: str) -> str | None:
    """The readiness that the service reports; None if it cannot be reached."""
    try:
        with OPENER.open(f"{url}/v1/readyz", timeout=5) as response:
            return str(json.load(response)["status"])
    except HTTPError as error:
        with error:
            return str(json.load(error).get("status"))
    except (OSError, HTTPException):  # URLError is an OSError
        return None


def alive(pid: int) -> bool:
    """Whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def wait(url: str, pid: int) -> bool:
    """Wait until the service is ready; False if it failed, stops or has ended."""
    while alive(pid):
        match state(url):
            case "ok":
                return True
            case "failed" | "draining":
                return False
        time.sleep(0.5)
    return False


def forecast(url: str) -> Any:
    """Post the example and return the response, parsed."""
    headers = {"Content-Type": "application/json"}
    request = Request(f"{url}/v1/predict/single", EXAMPLE.read_bytes(), headers)
    with OPENER.open(request, timeout=120) as response:
        return json.load(response)


def describe(response: Any) -> list[str]:
    """The forecast as lines of text."""
    rows = response["prediction"]
    low, high = (response["quantiles"][level]["close"] for level in ("0.1", "0.9"))
    lines = [f"{'time':<25}{'open':>9}{'high':>9}{'low':>9}{'close':>9}   close, 10-90 %"]
    for row, bottom, top in list(zip(rows, low, high, strict=True))[:SHOWN]:
        prices = "".join(f"{row[name]:9.2f}" for name in ("open", "high", "low", "close"))
        lines.append(f"{row['timestamp']:<25}{prices}   {bottom:.2f} to {top:.2f}")
    lines.append(f"... and {len(rows) - SHOWN} more, in {response['timings_ms']['total']:.0f} ms")
    if response["demo"]:
        lines.append("Made with the bundled demonstration checkpoint, which is not for trading.")
    return lines


def main() -> int:
    """Wait, post, print; 0 unless the forecast failed."""
    host, port = address()
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    # A process that listens this early is another one; the service then fails with its own message.
    if listens(host, port) or not wait(url, int(sys.argv[1])):
        return 0
    pages = f"documentation: {url}/docs"
    if os.environ.get("KRONOS_PLAYGROUND", "").lower() in ("true", "1", "yes", "on"):
        pages = f"try it: {url}/playground, {pages}"
    print(f"\nReady: {url} ({pages})\n", flush=True)
    try:
        lines = describe(forecast(url))
    except (OSError, HTTPException) as error:
        print(f"The example forecast failed: {error}", file=sys.stderr)
        return 1
    print("A forecast of examples/request-single.json, 400 candles of 15 minutes:")
    print("".join(f"  {line}\n" for line in lines))
    print(f"""Ask for it yourself:
  curl -s {url}/v1/predict/single -H 'Content-Type: application/json' \\
    -d @examples/request-single.json

Ctrl-C stops the service.
""")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
