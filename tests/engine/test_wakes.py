"""Waking event loops from threads: all of one loop by one call, closed ones by none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from quire.api.client.relay import Bell
from quire.engine.wakes import Wake, call_all


@pytest.fixture
def wakings(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.AbstractEventLoop]:
    """The loops that other threads have woken, each time."""
    seen: list[asyncio.AbstractEventLoop] = []
    really = asyncio.BaseEventLoop.call_soon_threadsafe

    def noted(loop: Any, callback: Callable[..., object], *arguments: Any, **more: Any) -> Any:
        seen.append(loop)
        return really(loop, callback, *arguments, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", noted)
    return seen


async def test_one_call_for_each_loop(wakings: list[asyncio.AbstractEventLoop]) -> None:
    here, other, closed = (
        asyncio.get_running_loop(),
        asyncio.new_event_loop(),
        asyncio.new_event_loop(),
    )
    closed.close()
    called: list[int] = []
    loops = [here, other, closed, here, other, here]
    wakes = [Wake(loop, partial(called.append, number)) for number, loop in enumerate(loops)]
    thread = threading.Thread(target=call_all, args=([*wakes, partial(called.append, 9)],))
    thread.start()
    thread.join()
    wakes[2]()  # nobody waits there any more
    assert called == [9], "what is no wake is called on the spot"
    assert wakings == [here, other, closed, closed]
    await asyncio.sleep(0)
    assert called == [9, 0, 3, 5]
    await asyncio.to_thread(other.run_until_complete, asyncio.sleep(0))
    other.close()
    assert called == [9, 0, 3, 5, 1, 4]


async def test_a_bell_rings_once_for_a_turn_of_its_loop(
    wakings: list[asyncio.AbstractEventLoop],
) -> None:
    loop = asyncio.get_running_loop()
    bell = Bell(loop)
    called: list[int] = []
    for turn in (1, 2):
        for number in range(3):
            bell.wake_soon(Wake(loop, partial(called.append, number)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert called == [0, 1, 2] * turn
        assert wakings == [loop] * turn
