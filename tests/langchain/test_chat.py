"""`ChatVLLM` on the bundled model, in process and remote: what calls give beyond the standard suites."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.runnables.config import RunnableConfig

from langchain_quire import VLLM, ChatVLLM
from quire.engine.engine import Engine
from quire.errors import UnsupportedParamError
from quire.testing import Answer, ScriptedEngine
from served_engine import Ended

Make = Callable[..., ChatVLLM]
FRANCE, PARIS = "What is the capital of France?", "The capital of France is Paris."
ENDLESS: dict[str, Any] = {"max_tokens": 1900, "model_kwargs": {"ignore_eos": True}}


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


def test_an_answer_and_its_stream_say_the_same(make: Make) -> None:
    chat = make(logprobs=True, top_logprobs=2)
    whole, stream = chat.invoke(FRANCE), merged(list(chat.stream(FRANCE)))
    assert whole.content == stream.content == PARIS
    for message in (whole, stream):
        metadata = message.response_metadata
        assert metadata["model_name"] == "quire-mini"
        assert metadata["model_provider"] == "quire"
        assert metadata["finish_reason"] == "stop"
        assert metadata["system_fingerprint"].startswith("quire-")
        assert metadata["id"].startswith("chatcmpl-")
        entries = metadata["logprobs"]["content"]
        assert "".join(entry["token"] for entry in entries).startswith(PARIS)
        assert len(entries[0]["top_logprobs"]) == 2
        usage = message.usage_metadata
        assert usage is not None and usage["output_tokens"] == len(entries)
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_awaited_answers_are_the_same(make: Make) -> None:
    chat = make()
    assert (await chat.ainvoke(FRANCE)).content == PARIS
    stream = merged([chunk async for chunk in chat.astream(FRANCE)])
    assert stream.content == PARIS and stream.usage_metadata is not None


def test_one_model_answers_from_one_event_loop_after_another(make: Make) -> None:
    chat = make()

    async def ask() -> str:
        answer = await chat.ainvoke(FRANCE)
        await chat.aclose() if chat.base_url else None  # sockets belong to their loop
        return answer.text

    assert [asyncio.run(ask()) for _ in range(3)] == [PARIS] * 3


def test_tokens_found_in_the_cache_are_counted(make: Make) -> None:
    chat = make()
    asked = "Please " * 60 + FRANCE
    chat.invoke(asked)
    usage = chat.invoke(asked).usage_metadata
    assert (
        usage is not None and 0 < usage["input_token_details"]["cache_read"] < usage["input_tokens"]
    )
    with_handler = UsageMetadataCallbackHandler()
    chat.invoke(asked, config={"callbacks": [with_handler]})
    assert with_handler.usage_metadata["quire-mini"]["total_tokens"] == usage["total_tokens"]


def test_all_of_n_answers_are_returned(make: Make) -> None:
    chat = make(n=3, temperature=1.5, seed=7)
    result = chat.generate([[HumanMessage("Tell me a story.")], [HumanMessage(FRANCE)]])
    assert [len(of_one) for of_one in result.generations] == [3, 3]
    texts = [one.text for one in result.generations[0]]
    assert len(set(texts)) > 1
    again = chat.generate([[HumanMessage("Tell me a story.")]])
    assert [one.text for one in again.generations[0]] == texts, "a seed repeats"
    messages = [one.message for one in result.generations[0] if isinstance(one, ChatGeneration)]
    counted = [message.usage_metadata for message in messages]
    assert counted[0] is not None and counted[1:] == [None, None], "the request's usage, once"
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["completion_tokens"] >= counted[0]["output_tokens"]
    with pytest.raises(UnsupportedParamError, match="n=3"):
        list(chat.stream(FRANCE))


def test_stops_of_the_constructor_and_of_a_call(make: Make) -> None:
    chat = make(stop=["Paris"])
    message = chat.invoke(FRANCE)
    assert message.content == "The capital of France is "
    assert message.response_metadata["stop_reason"] == "Paris"
    assert chat.invoke(FRANCE, stop=[" of"]).content == "The capital"
    assert chat.invoke(FRANCE, stop=[]).content == PARIS
    assert chat.bind(stop=[" is"]).invoke(FRANCE).content == "The capital of France"


def test_fields_of_a_call_replace_those_of_the_constructor(make: Make) -> None:
    chat = make(max_tokens=2)
    assert chat.invoke(FRANCE).response_metadata["finish_reason"] == "length"
    assert chat.invoke(FRANCE, max_tokens=50).content == PARIS
    assert chat.invoke(FRANCE, extra_body={"max_tokens": 50}).content == PARIS
    with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'"):
        chat.invoke(FRANCE, temprature=1)


def test_what_a_text_model_cannot_read_is_refused(make: Make) -> None:
    image = {"type": "image", "base64": "aGVsbG8=", "mime_type": "image/png"}
    with pytest.raises(openai.BadRequestError, match=r"image_url.*not supported"):
        make().invoke([HumanMessage([{"type": "text", "text": "What is it?"}, image])])


def test_templates_see_turns_that_alternate(make: Make) -> None:
    messages = [SystemMessage("Be kind."), SystemMessage("Be brief."), HumanMessage(FRANCE)]
    one = [SystemMessage("Be kind.\nBe brief."), HumanMessage(FRANCE)]
    chat = make()
    assert chat.get_num_tokens_from_messages(messages) == chat.get_num_tokens_from_messages(one)


def test_tokens_are_the_models_own(make: Make, engine: Engine) -> None:
    chat = make()
    assert engine.tokenizer is not None
    expected = engine.tokenizer.encode("Hello there!", add_special_tokens=False)
    assert chat.get_token_ids("Hello there!") == expected
    assert chat.get_num_tokens("Hello there!") == len(expected)
    assert chat.get_num_tokens("") == 0
    counted = chat.get_num_tokens_from_messages([HumanMessage(FRANCE)])
    usage = chat.invoke(FRANCE).usage_metadata
    assert usage is not None and counted == usage["input_tokens"]

    def add(a: int, b: int) -> int:
        """Add numbers."""
        return a + b

    usage = chat.bind_tools([add]).invoke(FRANCE).usage_metadata
    assert usage is not None
    assert chat.get_num_tokens_from_messages([HumanMessage(FRANCE)], [add]) == usage["input_tokens"]


def test_the_profile_learns_the_context(make: Make, engine: Engine) -> None:
    chat = make()
    assert chat.profile is not None and chat.profile["tool_calling"] is True
    profile = chat.load().profile
    assert profile is not None and profile["max_input_tokens"] == engine.max_model_len


class Together(BaseCallbackHandler):
    """Lets calls go on when so many have begun; with fewer it breaks."""

    raise_error = True

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count, timeout=20)

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self._barrier.wait()


def test_batches_reach_the_engine_together(make: Make) -> None:
    countries = ["France", "Italy", "Peru", "Spain", "Chile", "Cuba", "Mali", "Iraq"] * 6
    asked = [f"What is the capital of {country}?" for country in countries]
    answers = make().batch(asked, {"callbacks": [Together(len(asked))]})
    for country, answer in zip(countries, answers, strict=True):
        assert f"The capital of {country} is" in answer.text


def test_batches_of_limited_concurrency_and_with_errors(make: Make, ended: Ended) -> None:
    chat = make()
    good = RunnableConfig(max_concurrency=1)
    assert [one.text for one in chat.batch([FRANCE] * 3, good)] == [PARIS] * 3
    records = [ended.next() for _ in range(3)]
    for before, after in itertools.pairwise(records):
        assert before.metrics.finished_time is not None
        assert before.metrics.finished_time <= after.metrics.arrival_time
    too_long = "word " * 3000
    answers: list[Any] = chat.batch([FRANCE, too_long, FRANCE], return_exceptions=True)
    assert isinstance(answers[1], openai.BadRequestError)
    assert [answers[0].text, answers[2].text] == [PARIS, PARIS]
    with pytest.raises(openai.BadRequestError):
        chat.batch([FRANCE, too_long])
    done = dict(chat.batch_as_completed([FRANCE, "What is the capital of Italy?"]))
    assert [done[0].text, done[1].text] == [PARIS, "The capital of Italy is Rome."]


async def test_awaited_batches_and_chains(make: Make) -> None:
    chain = RunnableLambda(lambda country: f"What is the capital of {country}?") | make()
    rome = "The capital of Italy is Rome."
    assert [one.text for one in await chain.abatch(["France", "Italy"])] == [PARIS, rome]
    assert [one.text for one in chain.batch(["France", "Italy"])] == [PARIS, rome]


def test_a_closed_stream_aborts_its_request(make: Make, ended: Ended) -> None:
    stream = make(**ENDLESS).stream("Tell me a story.")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert ended.next().finish_reasons == ("abort",)
    assert ended.is_idle()


async def test_a_cancelled_task_aborts_its_request(
    make: Make, ended: Ended, engine: Engine
) -> None:
    chat = make(**ENDLESS)
    for begin in (chat.ainvoke, _read_all(chat)):
        ended.clear()
        task = asyncio.create_task(begin("Tell me a story."))
        while engine.load().num_running == 0:
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert (await ended.anext()).finish_reasons == ("abort",)
        assert ended.is_idle()


def _read_all(chat: ChatVLLM) -> Callable[[str], Any]:
    async def read(asked: str) -> None:
        async for _ in chat.astream(asked):
            pass

    return read


def test_fallbacks_and_retries(make: Make) -> None:
    broken = make(model_kwargs={"nonsense": 1})
    with pytest.raises(openai.BadRequestError):
        broken.invoke(FRANCE)
    assert broken.with_fallbacks([make()]).invoke(FRANCE).text == PARIS
    assert make().with_retry(stop_after_attempt=2).invoke(FRANCE).text == PARIS


def test_cached_answers_are_found_by_every_parameter(make: Make, ended: Ended) -> None:
    cache = InMemoryCache()
    chat = make(cache=cache)
    said = [chat.invoke(FRANCE).text for _ in range(3)]
    assert said == [PARIS] * 3
    ended.next()
    other = make(cache=cache, stop=["Paris"])
    assert other.invoke(FRANCE).text != PARIS
    assert chat.invoke(FRANCE, stop=["capital"]).text == "The "
    ended.next()
    ended.next()
    assert ended.is_empty()


def test_cached_texts_are_found_by_the_fields_of_the_call_too(where: dict[str, Any]) -> None:
    cache = InMemoryCache()
    llm = VLLM(**where, temperature=0, cache=cache)
    texts = [llm.invoke("The capital of", max_new_tokens=length) for length in (2, 4, 2)]
    assert texts[0] == texts[2] != texts[1]
    assert asyncio.run(llm.ainvoke("The capital of", max_new_tokens=4)) == texts[1]
    assert len(cache._cache) == 2


def test_cached_answers_are_of_one_model() -> None:
    cache = InMemoryCache()
    with ScriptedEngine("One.") as engine:
        chat = ChatVLLM(engine=engine, model="one", cache=cache)
        config: Any = {"configurable": {"thread_id": "a"}}
        assert chat.invoke("hi", config).text == chat.invoke("hi").text == "One."
    with ScriptedEngine("Two.") as engine:
        assert ChatVLLM(engine=engine, model="two", cache=cache).invoke("hi").text == "Two."


def test_rate_limits_and_disabled_streams(make: Make) -> None:
    limiter = InMemoryRateLimiter(requests_per_second=1e6, check_every_n_seconds=1e-4)
    assert make(rate_limiter=limiter).invoke(FRANCE).text == PARIS
    chunks = list(make(disable_streaming=True).stream(FRANCE))
    assert [chunk.text for chunk in chunks if chunk.text] == [PARIS]
    assert make(streaming=True).invoke(FRANCE).text == PARIS


def test_streams_without_usage(make: Make) -> None:
    assert merged(list(make(stream_usage=False).stream(FRANCE))).usage_metadata is None


@pytest.mark.parametrize("output_version", ["v0", "v1"])
def test_thoughts(output_version: str) -> None:
    answer = Answer("It is 4.", reasoning="Two and two.", when="2 + 2")
    with ScriptedEngine([answer], reasoning_parser="think") as engine:
        chat = ChatVLLM(engine=engine, output_version=output_version)
        for message in (chat.invoke("2 + 2?"), merged(list(chat.stream("2 + 2?")))):
            assert message.text == "It is 4."
            assert message.additional_kwargs["reasoning_content"] == "Two and two."
            blocks = [(block["type"], block.get(block["type"])) for block in message.content_blocks]
            assert blocks == [("reasoning", "Two and two."), ("text", "It is 4.")]
            usage = message.usage_metadata
            assert usage is not None and usage["output_token_details"]["reasoning"] > 0


def test_a_langgraph_thread_is_a_session() -> None:
    with ScriptedEngine(
        "Hello.",
    ) as engine:
        said: list[Any] = []
        chat = ChatVLLM(engine=engine)
        call = RunnableLambda(lambda asked: said.append(chat.invoke(asked)))
        call.invoke("hi", config={"configurable": {"thread_id": "t1"}})
        assert [request.session_id for request in engine.requests] == ["t1"]


def test_a_thread_is_a_session_outside_of_graphs_too() -> None:
    config: Any = {"configurable": {"thread_id": 7}}
    with ScriptedEngine(lambda request: "Hello.") as engine:
        for model in (ChatVLLM(engine=engine), VLLM(engine=engine)):
            bound: Any = model.bind(temperature=0)
            bound.invoke("hi", config)
            list(bound.stream("hi", config))

            async def awaited(bound: Any = bound) -> None:
                await bound.ainvoke("hi", config)
                assert [piece async for piece in bound.astream("hi", config)]

            asyncio.run(awaited())
            own: Any = model.model_copy(update={"session_id": "own"})
            own.invoke("hi", config)
        assert [request.session_id for request in engine.requests] == [*["7"] * 4, "own"] * 2


def test_configurable_fields(make: Make) -> None:
    chat = make().configurable_fields(max_tokens=ConfigurableField(id="most"))
    cut = chat.invoke(FRANCE, config={"configurable": {"most": 2}})
    assert cut.response_metadata["finish_reason"] == "length"
