"""Whatever the model says and wherever it is stopped, the pieces of a stream are the whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_service import Pace, chat, complete, saying, service, stream_chat, stream_completion

ALPHABET = "abc é€👋👩\u200d\ufe0f\n日"
TEXTS = st.text(ALPHABET, min_size=1, max_size=24)
STOPS = st.one_of(
    st.none(), st.lists(st.text(ALPHABET, min_size=1, max_size=3), min_size=1, max_size=3)
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@settings(max_examples=30, deadline=None)
@given(text=TEXTS, stop=STOPS, n=st.integers(1, 3), limit=st.integers(1, 80), echo=st.booleans())
def test_pieces_are_the_whole(
    loop: asyncio.AbstractEventLoop, text: str, stop: Any, n: int, limit: int, echo: bool
) -> None:
    common = {"stop": stop, "n": n, "max_tokens": limit, "include_stop_str_in_output": echo}

    async def run() -> None:
        pace = Pace()
        async with service("", next_token=lambda t: saying(t, text), pace=pace) as made:
            chunks = await stream_chat(made, pace, **common)
            pieces = await stream_completion(made, pace, prompt="é1", echo=echo, **common)
            pace.let_go()
            answer = await chat(made, **common)
            completion = await complete(made, prompt="é1", echo=echo, **common)
        for index in range(n):
            whole = answer["choices"][index]
            deltas = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
            said = "".join(delta["delta"].get("content", "") for delta in deltas)
            assert said == whole["message"]["content"]
            assert [d["delta"].get("role") for d in deltas][:1] == ["assistant"]
            assert deltas[-1]["finish_reason"] == whole["finish_reason"]
            assert deltas[-1]["stop_reason"] == whole["stop_reason"]
            assert [d["finish_reason"] for d in deltas[:-1]] == [None] * (len(deltas) - 1)

            whole = completion["choices"][index]
            parts = [c for piece in pieces for c in piece["choices"] if c["index"] == index]
            assert "".join(part["text"] for part in parts) == whole["text"]
            assert parts[-1]["finish_reason"] == whole["finish_reason"]
            assert whole["text"].startswith("é1") or not echo

    loop.run_until_complete(run())
