from __future__ import annotations

import threading

import pytest

from kronos_api.off_loop import off_loop


@pytest.mark.parametrize("large", [False, True])
async def test_only_large_calls_get_a_thread(large: bool) -> None:
    caller = threading.get_ident()
    assert (await off_loop(large, threading.get_ident) != caller) is large
    assert await off_loop(large, divmod, 7, 3) == (2, 1)
