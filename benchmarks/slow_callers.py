"""Very many connections that are slow in one way: `HOST PORT KIND COUNT [SOURCE]`.

Prints, as a JSON list, after how many seconds each was closed by the other side. It is a
process of its own, so that its load is not part of the other callers' measurements.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

GIVE_UP = 60.0
"""Seconds after which a connection that is still open is counted as never closed."""
STEP, PAUSE = 25, 0.05
"""So many are opened, then so many seconds are waited: a burst is another matter."""

KINDS: dict[str, tuple[bytes, bytes, int]] = {
    "headers": (b"POST /v1/predict/single HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n", 0),
    "body": (
        b"POST /v1/predict/single HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\n\r\n",
        b" ",
        0,
    ),
    "idle": (b"HEAD /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"", 1),
    "silent": (b"", b"", 0),
}
"""By kind: bytes sent at once, bytes sent every second after, and responses read in between."""


async def closed(host: str, port: int, kind: str, source: str | None = None) -> float:
    """Seconds from connecting, or from the last answer, until the other side closed.

    A connection that the other side closes before its answers counts as closed at once.
    """
    first, drip, answers = KINDS[kind]
    local = None if source is None else (source, 0)
    reader, writer = await asyncio.open_connection(host, port, local_addr=local)
    writer.write(first)
    try:
        for _ in range(answers):
            await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0.0
    began = time.perf_counter()

    async def dripping() -> None:
        while drip:
            writer.write(drip)
            await asyncio.sleep(1)

    dripper = asyncio.create_task(dripping())
    try:
        await asyncio.wait_for(reader.read(), GIVE_UP)
    except TimeoutError:
        return GIVE_UP
    except ConnectionError:
        pass
    finally:
        dripper.cancel()
        writer.transport.abort()
    return time.perf_counter() - began


async def all_closed(
    host: str, port: int, kind: str, count: int, source: str | None = None
) -> list[float]:
    """When each of `count` connections was closed."""
    waiting = []
    for start in range(0, count, STEP):
        waiting += [
            asyncio.create_task(closed(host, port, kind, source))
            for _ in range(min(STEP, count - start))
        ]
        await asyncio.sleep(PAUSE)
    return list(await asyncio.gather(*waiting))


def main() -> None:
    """Print the list."""
    host, port, kind, count, *source = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(count) + 100
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    print(json.dumps(asyncio.run(all_closed(host, int(port), kind, int(count), *source))))


if __name__ == "__main__":
    main()
