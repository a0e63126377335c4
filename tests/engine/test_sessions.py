"""`session_id` on requests: through every face, with the engine's clock, share and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import api_service
from fake_executor import FakeExecutor
from quire import LLM, AsyncLLM, Engine, SamplingParams
from quire.api.calls import Call
from quire.api.protocol import CompletionRequest
from quire.errors import ConfigError, InvalidParamsError

MESSAGES = [{"role": "user", "content": "A message that is long enough to fill some blocks."}]


class Clock:
    """Seconds, turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_engine(clock: Clock | None = None, **options: Any) -> Engine:
    options = {"num_blocks": 32, "max_model_len": 64, "skip_tokenizer_init": True, **options}
    return Engine(executor=FakeExecutor(**options), clock=clock or Clock())


def prompt(first: int, length: int = 24) -> list[int]:
    return [first * 30 + i % 30 for i in range(1, length + 1)]


def generate(llm: LLM, ids: list[int], session: str | None = None, max_tokens: int = 1) -> Any:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, detokenize=False)
    [output] = llm.generate(ids, params, session_id=session)
    return output


def flood(llm: LLM) -> None:
    for number in range(10, 24):
        generate(llm, prompt(number))


def figures(engine: Engine) -> dict[str, Any]:
    # An answer may be there before its step has noted its figures.
    engine.call(lambda scheduler: None)
    return {
        metric.name: getattr(metric, "value", None)
        for metric in engine.metrics.snapshot()
        if "session" in metric.name
    }


def test_a_next_turn_finds_its_blocks_after_a_flood() -> None:
    with make_engine() as engine, LLM(engine=engine) as llm:
        for session, found in ((None, 0), ("thread-1", 28)):
            first = generate(llm, prompt(1), session, max_tokens=6)
            answer = first.outputs[0].token_ids
            flood(llm)
            turn = generate(llm, [*prompt(1), *answer, *prompt(2, 9)], session)
            assert turn.num_cached_tokens == found
            engine.reset_prefix_cache()


def test_figures_of_sessions() -> None:
    clock = Clock()
    with make_engine(clock, session_ttl=60) as engine, LLM(engine=engine) as llm:
        generate(llm, prompt(1), "a")
        generate(llm, prompt(2), "b")
        generate(llm, [*prompt(1), 7], "a")
        assert figures(engine) == {
            "quire:sessions": 2,
            "quire:session_blocks": 12,
            "quire:session_hit_tokens": 24,
        }
        clock.now = 61
        generate(llm, prompt(3))
        assert figures(engine)["quire:sessions"] == 0


def test_a_session_ends_when_it_is_ended() -> None:
    with make_engine() as engine, LLM(engine=engine) as llm:
        generate(llm, prompt(1), "a")
        assert not engine.end_session("a", cache_salt="another tenant's")
        assert engine.end_session("a")
        assert not engine.end_session("a")
        flood(llm)
        assert generate(llm, [*prompt(1), 7], "a").num_cached_tokens == 0


def test_sessions_refuse_nobody() -> None:
    """The whole cache is retained, and a request that needs all of it runs at once."""
    with (
        make_engine(num_blocks=16, session_cache_share=1) as engine,
        LLM(engine=engine) as llm,
    ):
        for number in range(3):
            generate(llm, prompt(number), f"thread-{number}")
        assert figures(engine)["quire:session_blocks"] == 16
        output = generate(llm, prompt(5, 60), max_tokens=4)
        assert len(output.outputs[0].token_ids) == 4


def test_a_session_with_n_sequences_retains_them_all() -> None:
    with make_engine() as engine, LLM(engine=engine) as llm:
        params = SamplingParams(n=3, max_tokens=6, ignore_eos=True, detokenize=False)
        [output] = llm.generate(prompt(1), params, session_id="a")
        flood(llm)
        for one in output.outputs:
            turn = generate(llm, [*prompt(1), *one.token_ids, 5, 6], "a")
            assert turn.num_cached_tokens == 28


def test_one_session_for_each_prompt() -> None:
    with make_engine() as engine, LLM(engine=engine) as llm:
        params = SamplingParams(max_tokens=1, detokenize=False)
        llm.generate([prompt(1), prompt(2), prompt(3)], params, session_id=["a", None, "b"])
        assert figures(engine)["quire:sessions"] == 2
        with pytest.raises(InvalidParamsError, match="session_id has 1 items for 2 prompts"):
            llm.generate([prompt(1), prompt(2)], params, session_id=["a"])


@pytest.mark.parametrize("session", ["", 7, "x" * 513])
def test_a_session_id_is_a_text(session: Any) -> None:
    with make_engine() as engine, LLM(engine=engine) as llm:
        with pytest.raises(InvalidParamsError, match="session_id must be a text") as caught:
            llm.generate(prompt(1), session_id=session)
        assert caught.value.param == "session_id"


@pytest.mark.parametrize(
    ("name", "value"),
    [("session_ttl", -1), ("session_ttl", float("nan")), ("session_cache_share", 1.1)],
)
def test_limits_are_checked(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        make_engine(**{name: value})


def test_a_stream_and_an_async_face_have_sessions_too() -> None:
    async def run(engine: Engine) -> None:
        params = SamplingParams(max_tokens=2, detokenize=False)
        async with AsyncLLM(engine=engine) as llm:
            async for _ in llm.generate(prompt(2), params, session_id="b"):
                pass

    with make_engine() as engine, LLM(engine=engine) as llm:
        for _ in llm.stream(prompt(1), SamplingParams(max_tokens=2), session_id="a"):
            pass
        asyncio.run(run(engine))
        assert figures(engine)["quire:sessions"] == 2


async def test_every_endpoint_takes_a_session_id() -> None:
    async with api_service.service(num_blocks=256, block_size=4) as made:
        await api_service.complete(made, prompt="Hello there!", session_id="a")
        await api_service.chat(made, session_id="b")
        await api_service.respond(made, input="Hello there!", session_id="c")
        assert figures(made.engine)["quire:sessions"] == 3
        await api_service.stream_chat(made, session_id="b")
        assert figures(made.engine)["quire:session_hit_tokens"] > 0


async def test_tenants_do_not_share_sessions() -> None:
    async with api_service.service() as made:
        request, _ = made.parse(CompletionRequest, {"prompt": "Hello there!", "session_id": "a"})
        for tenant in ("one", "two"):
            await made.completions(request, Call("a-call", tenant=tenant))
        assert figures(made.engine)["quire:sessions"] == 2


async def test_a_session_id_is_checked_by_the_endpoint() -> None:
    async with api_service.service() as made:
        with pytest.raises(InvalidParamsError, match="session_id"):
            await api_service.chat(made, session_id="")
