"""One count for all workers and replicas, in Redis.

A script of our own, because several quotas must be granted at once or not at all, and a Redis that
lost its data must get the counts back (ADR 7).

Each worker has two fields in a window: forecasts granted, and forecasts given back. The count is
the sum of the first less the sum of the second. Every call carries the worker's own two numbers,
and neither field ever decreases. So a Redis that was unavailable, or lost its data, gets the counts
of the meantime; a call whose answer was lost is not counted twice, and a late call undoes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from kronos_api.ratelimit.store import Reading, StoreUnavailable, WindowCounter
from kronos_api.redis_pool import redis_pool

SCRIPT: Final = """\
-- KEYS: one for each quota. ARGV: cost, worker; for each quota its amount, its window in
-- milliseconds, and the number of the worker's window with its forecasts granted and given back.
-- A field has the name of its worker, with a minus before it for forecasts given back.
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
    """Counts in the Redis at `url`; raises `StartupError` if that is not a URL of a Redis."""

    kind: Literal["redis", "host"] = "redis"

    def __init__(self, url: str) -> None:
        self._pool = redis_pool(url)
        self._redis = Redis(connection_pool=self._pool)
        self._script = self._redis.register_script(SCRIPT)
        self._worker = secrets.token_hex(8)

    async def open(self) -> None:
        """No fault lasts: a Redis that is unavailable can come back."""

    async def check(self) -> None:
        try:
            # Connections to a Redis that was restarted are dead.
            await self._pool.disconnect(inuse_connections=False)
            await self._redis.ping()
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreUnavailable(str(error)) from None

    async def count(
        self, caller: str, counters: Sequence[WindowCounter], cost: int
    ) -> tuple[bool, list[Reading]]:
        keys = [counter.quota.key(caller) for counter in counters]
        arguments: list[str | int] = [cost, self._worker]
        for counter in counters:
            quota = counter.quota
            arguments += [quota.amount, quota.seconds * 1000]
            arguments += [counter.window, counter.granted, counter.returned]
        try:
            answer: Any = await self._script(keys=keys, args=arguments)
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreUnavailable(str(error)) from None
        allowed, *numbers = (int(number) for number in answer)
        readings = [
            Reading(window, total, left / 1000)
            for window, total, left in zip(*[iter(numbers)] * 3, strict=True)
        ]
        return bool(allowed), readings

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()
