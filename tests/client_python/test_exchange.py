"""Many requests of one call: order, concurrency, quota and splitting, without clients."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from kronos_api_client.errors import InvalidInput, QueueFull
from kronos_api_client.exchange import exchange
from kronos_api_client.jobs import batches
from kronos_api_client.messages import Answer, Exchange, Item, Outcome, Request, Start
from kronos_api_client.quota import Quota
from tests.client_python.service import Clock, refusal

EPOCH = 1_700_000_000


class World:
    """A service that takes `seconds` for a batch and grants `quota` series a minute.

    Runs an exchange by events instead of threads: a response comes when the clock reaches its time.
    """

    def __init__(self, seconds: float = 1.0, quota: int = 10**6, **bounds: int) -> None:
        self.clock = Clock(0.0)
        self.seconds = seconds
        self.quota = quota
        self.largest = bounds.get("largest", 10**6)
        self.queue = bounds.get("queue", 10**6)
        self.used: Counter[int] = Counter()
        self.statuses: list[int] = []
        self.most_running = 0
        self._running: list[tuple[float, Request]] = []

    def run(self, going: Exchange) -> list[Answer]:
        try:
            command = next(going)
            while True:
                outcomes: list[Outcome] = []
                if isinstance(command, Start):
                    self._running.append((self.clock.time + self.seconds, command.request))
                    self.most_running = max(self.most_running, len(self._running))
                else:
                    outcomes = self._pass(command.seconds)
                command = going.send(outcomes)
        except StopIteration as stop:
            answers: list[Answer] = stop.value
            return answers

    def _pass(self, seconds: float | None) -> list[Outcome]:
        ends = min((end for end, _ in self._running), default=None)
        limit = None if seconds is None else self.clock.time + seconds
        self.clock.time = min(time for time in (ends, limit) if time is not None)
        done = [one for one in self._running if one[0] <= self.clock.time]
        queued = sum(len(request.items) for _, request in self._running)
        self._running = [one for one in self._running if one not in done]
        return [Outcome(request, self._respond(request, queued)) for _, request in done]

    def _respond(self, request: Request, queued: int) -> httpx.Response:
        response = self._judge(request, queued)
        self.statuses.append(response.status_code)
        return response

    def _judge(self, request: Request, queued: int) -> httpx.Response:
        cost = len(request.items)
        if cost > self.largest:
            return refusal(400, "INVALID_INPUT", [{"field": "items", "index": None}])
        if queued > self.queue:
            return refusal(503, "QUEUE_FULL", retry_after="2")
        minute, second = divmod(self.clock.time, 60)
        used = self.used[int(minute)]
        allowed = used + cost <= self.quota
        if allowed:
            self.used[int(minute)] += cost
        headers = {
            "X-RateLimit-Limit": str(self.quota),
            "X-RateLimit-Remaining": str(self.quota - self.used[int(minute)]),
            "X-RateLimit-Reset": str(EPOCH + 60 * (int(minute) + 1)),
            "Date": formatdate(EPOCH + int(self.clock.time), usegmt=True),
        }
        if not allowed:
            wait = str(int(60 - second) + 1)
            response = refusal(429, "RATE_LIMITED", retry_after=wait)
            response.headers.update(headers)
            return response
        content = [item["n"] for item in json.loads(request.content or b"")["items"]]
        return httpx.Response(200, json=content, headers=headers)


def items(count: int) -> list[Item]:
    return [Item(f"series {n}", json.dumps({"n": n}).encode()) for n in range(count)]


def run(world: World, count: int, size: int, **options: Any) -> list[Any]:
    chosen = {"max_wait": 120.0, "concurrency": 4} | options
    going = exchange(batches(items(count), size), now=world.clock.now, **chosen)
    return [answer.content for answer in world.run(going)]


def test_answers_come_in_order_and_requests_side_by_side() -> None:
    world = World()
    assert run(world, 100, 10) == list(range(100))
    assert world.most_running == 4
    assert world.clock.time == 3  # ten batches of a second, four at a time


def test_waits_for_the_quota_without_being_refused() -> None:
    world = World(quota=100)
    assert run(world, 350, 10) == list(range(350))
    assert set(world.statuses) == {200}
    assert [world.used[minute] for minute in range(4)] == [100, 100, 100, 50]


def test_quota_that_others_use_too_is_waited_for_by_retry_after() -> None:
    world = World(quota=100)
    world.used[0] = 95
    assert run(world, 40, 10) == list(range(40))
    assert world.statuses.count(429) == 4
    assert world.used[1] == 40


def test_many_minutes_of_quota_pass_within_a_short_max_wait() -> None:
    world = World(quota=20)
    assert run(world, 200, 10, max_wait=70.0) == list(range(200))
    assert world.clock.time > 500


def test_quota_that_refills_too_late_is_refused_by_the_service() -> None:
    world = World(quota=20)
    with pytest.raises(Exception, match="RATE_LIMITED"):
        run(world, 200, 10, max_wait=30.0)


def test_full_queue_is_waited_for() -> None:
    world = World(queue=16)
    assert run(world, 64, 16) == list(range(64))
    assert world.statuses == [503] * 4 + [200] * 4  # then one at a time


def test_queue_that_stays_full_is_given_up() -> None:
    world = World(queue=0)
    with pytest.raises(QueueFull):
        run(world, 64, 16)
    assert world.clock.time <= 121


@pytest.mark.parametrize("largest", [1, 3, 5, 16])
def test_batches_over_a_bound_of_the_service_are_split(largest: int) -> None:
    world = World(largest=largest)
    assert run(world, 50, 16) == list(range(50))
    refused = world.statuses.count(400)
    assert refused <= 4 * 4 + 1  # those side by side, halved four times at most


@pytest.mark.parametrize("code", ["REQUEST_TOO_LARGE", "WORK_TOO_LARGE"])
def test_other_bounds_split_as_well(code: str) -> None:
    sizes = []

    class Small(World):
        def _judge(self, request: Request, queued: int) -> httpx.Response:
            sizes.append(len(request.items))
            return refusal(400, code) if len(request.items) > 2 else super()._judge(request, queued)

    assert run(Small(), 8, 8, concurrency=1) == list(range(8))
    assert sizes == [8, 4, 2, 2, 2, 2]


def test_single_series_over_a_bound_is_refused() -> None:
    with pytest.raises(InvalidInput):
        run(World(largest=0), 3, 2)


def test_refused_series_is_named() -> None:
    class Refusing(World):
        def _judge(self, request: Request, queued: int) -> httpx.Response:
            if request.first != 20:
                return super()._judge(request, queued)
            detail = {"item": 3, "field": "candles.high", "index": 2, "constraint": "finite"}
            return refusal(400, "INVALID_INPUT", [detail])

    with pytest.raises(InvalidInput) as raised:
        run(Refusing(), 40, 10)
    (detail,) = raised.value.details
    assert (detail["item"], detail["series_id"], detail["index"]) == (23, "series 23", 2)
    assert raised.value.__notes__ == ["The first is of series 'series 23'."]


def test_answers_for_another_number_of_series_are_an_error() -> None:
    class Forgetful(World):
        def _judge(self, request: Request, queued: int) -> httpx.Response:
            del request, queued
            response = httpx.Response(200, json=[])
            response.request = httpx.Request("POST", "http://service")
            return response

    with pytest.raises(Exception, match="something else than Kronos API"):
        run(Forgetful(), 3, 3)


def test_no_requests_have_no_answers() -> None:
    assert run(World(), 0, 10) == []


def test_parts_of_a_call_with_the_longest_key_have_keys_that_the_service_accepts() -> None:
    requests = [replace(one, key="k" * 128) for one in batches(items(300), 100)]
    keys = [one.headers["Idempotency-Key"] for one in requests]
    assert len(set(keys)) == 3
    assert max(map(len, keys)) <= 128
    again = [replace(one, key="k" * 128).headers["Idempotency-Key"] for one in requests]
    assert again == keys
    assert replace(requests[0], key="l" * 128).headers["Idempotency-Key"] not in keys


@pytest.mark.parametrize(("size", "limit"), [(3, 10**6), (100, 40)])
def test_batches_keep_within_series_and_bytes(size: int, limit: int) -> None:
    made = list(batches(items(20), size, limit))
    assert [item for one in made for item in one.items] == items(20)
    assert [one.first for one in made] == [
        sum(len(before.items) for before in made[:n]) for n in range(len(made))
    ]
    assert max(len(one.items) for one in made) <= size
    assert max(sum(len(item.content) + 1 for item in one.items) for one in made) <= limit


def test_quota_is_unknown_until_a_response_states_it() -> None:
    quota = Quota()
    quota.read(httpx.Response(200), 0)
    assert quota.delay(10, 0, 0) == 0
    stated = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "99"}
    quota.read(httpx.Response(200, headers=stated), 0)
    assert quota.delay(5, 0, 0) == 0
    assert quota.delay(5, 1, 0) is None
    assert quota.delay(6, 0, 0) == 0  # without a date the refill is unknown: ask
    assert quota.delay(21, 0, 0) == 0  # more than is ever granted: the service says so


def test_quota_is_whole_again_when_it_refills() -> None:
    quota = Quota(limit=20, remaining=0, refills_at=50)
    assert quota.delay(8, 0, 40) == 10
    assert quota.delay(8, 0, 50) == 0
    assert quota.delay(8, 8, 50) == 0
    assert quota.delay(8, 16, 50) is None
