"""One count for all workers and replicas, in Redis.

Each worker's grants of a window stand in a field of their own, and the sum of the fields counts.
With every call a worker says what it has granted in the window, and the field is never less. So a
Redis that was away, or has lost what it held, learns what was granted meanwhile; a call whose
answer got lost is not counted twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kronos_api.errors import StartupError
from kronos_api.ratelimit.store import Reading, StoreOut, Tally

CONNECTIONS: Final = 16
"""At most, for each worker; further calls wait for one, within their bound."""

SCRIPT: Final = """\
-- KEYS: one for each quota. ARGV: cost, worker; for each quota its amount, its window in
-- milliseconds, and the window that the worker speaks of with what it has granted in it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cost, worker = tonumber(ARGV[1]), ARGV[2]
local allowed, readings = 1, {}
for i, key in ipairs(KEYS) do
  local amount, span = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local window, mine = tonumber(ARGV[4 * i + 1]), tonumber(ARGV[4 * i + 2])
  local current = math.floor(now / span)
  local total, granted = 0, 0
  if redis.call('HGET', key, 'window') ~= string.format('%d', current) then
    redis.call('DEL', key)
  else
    local fields = redis.call('HGETALL', key)
    for f = 1, #fields, 2 do
      if fields[f] == worker then
        granted = tonumber(fields[f + 1])
      elseif fields[f] ~= 'window' then
        total = total + fields[f + 1]
      end
    end
  end
  if window == current and mine > granted then granted = mine end
  if total + granted + cost > amount then allowed = 0 end
  readings[i] = {current, total, granted, (current + 1) * span}
end
local answer = {allowed}
for i, key in ipairs(KEYS) do
  local current, total, granted, till = unpack(readings[i])
  if allowed == 1 then granted = granted + cost end
  if granted > 0 then
    redis.call('HSET', key, 'window', string.format('%d', current), worker, granted)
    redis.call('PEXPIREAT', key, till)
  end
  answer[3 * i - 1], answer[3 * i], answer[3 * i + 1] = current, total + granted, till - now
end
return answer
"""


class RedisStore:
    """Counts in the Redis at `url`; raises `StartupError` for what is no URL of one."""

    kind: Literal["redis", "host"] = "redis"

    def __init__(self, url: str) -> None:
        self._pool = _pool(url)
        self._redis = Redis(connection_pool=self._pool)
        self._script = self._redis.register_script(SCRIPT)
        self._worker = secrets.token_hex(8)

    async def open(self) -> None:
        """Nothing can be wrong for good: a Redis that is away may come."""

    async def check(self) -> None:
        try:
            # What was connected before it went away is of no use.
            await self._pool.disconnect(inuse_connections=False)
            await self._redis.ping()
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreOut(str(error)) from None

    async def count(
        self, caller: str, tallies: Sequence[Tally], cost: int
    ) -> tuple[bool, list[Reading]]:
        keys = [tally.quota.key(caller) for tally in tallies]
        arguments: list[str | int] = [cost, self._worker]
        for tally in tallies:
            quota = tally.quota
            arguments += [quota.amount, quota.seconds * 1000, tally.window, tally.mine]
        try:
            answer: Any = await self._script(keys=keys, args=arguments)
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreOut(str(error)) from None
        allowed, *numbers = (int(number) for number in answer)
        readings = [
            Reading(window, total, left / 1000)
            for window, total, left in zip(*[iter(numbers)] * 3, strict=True)
        ]
        return bool(allowed), readings

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()


def _pool(url: str) -> BlockingConnectionPool:
    """Connections that are made on demand and tried once: the limiter knows what to do then."""
    told = (
        "KRONOS_REDIS_URL: not of the form redis://[[user]:password@]host[:port][/database],"
        " rediss://... or unix:///path, with special characters of user and password encoded"
    )
    try:
        parts = urlsplit(url)
        whole = bool(parts.path if parts.scheme == "unix" else parts.hostname)
        database = parts.scheme == "unix" or parts.path.strip("/").isdecimal() or not parts.path[1:]
        if not (whole and database) or parts.fragment or parts.port == 0:
            raise ValueError
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        pool.make_connection()  # type: ignore[no-untyped-call]  # options that it does not know are found out now
    except Exception:  # whatever it says may hold the password
        raise StartupError(told) from None
    return pool
