"""One count for all workers and replicas, in Redis.

Each worker's grants of a window stand in a field of their own, and what it gave back of them in
another: the grants less what was given back count. With every call a worker says what it has
granted and given back in the window, and neither field is ever less. So a Redis that was away, or
has lost what it held, learns what happened meanwhile; a call whose answer got lost is not counted
twice, and one that arrives late undoes nothing.
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
-- milliseconds, and the window that the worker speaks of with what it has granted in it and given
-- back. A field's name is that of its worker, with a minus for what was given back.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cost, worker = tonumber(ARGV[1]), ARGV[2]
local allowed, readings = 1, {}
for i, key in ipairs(KEYS) do
  local amount, span = tonumber(ARGV[5 * i - 2]), tonumber(ARGV[5 * i - 1])
  local window = tonumber(ARGV[5 * i])
  local mine, back = tonumber(ARGV[5 * i + 1]), tonumber(ARGV[5 * i + 2])
  local current = math.floor(now / span)
  local others, granted, returned = 0, 0, 0
  if redis.call('HGET', key, 'window') ~= string.format('%d', current) then
    redis.call('DEL', key)
  else
    local fields = redis.call('HGETALL', key)
    for f = 1, #fields, 2 do
      local name, value = fields[f], tonumber(fields[f + 1])
      if name == worker then
        granted = value
      elseif name == '-' .. worker then
        returned = value
      elseif string.sub(name, 1, 1) == '-' then
        others = others - value
      elseif name ~= 'window' then
        others = others + value
      end
    end
  end
  if window == current then
    granted, returned = math.max(granted, mine), math.max(returned, back)
  end
  if others + granted - returned + cost > amount then allowed = 0 end
  readings[i] = {current, others, granted, returned, (current + 1) * span}
end
local answer = {allowed}
for i, key in ipairs(KEYS) do
  local current, others, granted, returned, till = unpack(readings[i])
  if allowed == 1 then granted = granted + cost end
  if granted > 0 then
    redis.call('HSET', key, 'window', string.format('%d', current), worker, granted)
    if returned > 0 then redis.call('HSET', key, '-' .. worker, returned) end
    redis.call('PEXPIREAT', key, till)
  end
  answer[3 * i - 1], answer[3 * i] = current, others + granted - returned
  answer[3 * i + 1] = till - now
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
            arguments += [quota.amount, quota.seconds * 1000]
            arguments += [tally.window, tally.mine, tally.returned]
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
