"""ScriptedEngine: what a script says comes out of every face as if a model had said it."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import api_service
from quire import LLM, AsyncLLM, RequestOutputKind, SamplingParams, StructuredOutputsParams
from quire.api.service import Service, ServiceOptions
from quire.errors import (
    ConfigError,
    EngineDeadError,
    InvalidPromptError,
    QueueFullError,
    QuireError,
    RequestFailedError,
    ScriptError,
)
from quire.testing import Answer, Call, ScriptedEngine, ScriptedRequest, Token

USER = [{"role": "user", "content": "What is the weather in Rome?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = Call("get_weather", {"city": "Rome"})
OBJECT = StructuredOutputsParams(json={"type": "object", "properties": {"a": {"type": "integer"}}})


@contextmanager
def scripted(script: Any, **options: Any) -> Iterator[LLM]:
    with ScriptedEngine(script, **options) as engine, LLM(engine=engine) as llm:
        yield llm


def engine_of(llm: LLM) -> ScriptedEngine:
    assert isinstance(llm.engine, ScriptedEngine)
    return llm.engine


def say(llm: LLM, prompt: str = "Hello", **params: Any) -> Any:
    [output] = llm.generate(prompt, SamplingParams(**params))
    return output.outputs[0]


# ------------------------------------------------------------------ which answer


def test_answers_come_in_order() -> None:
    with scripted(["One.", Answer("Two."), "Three."]) as llm:
        texts = [one.outputs[0].text for one in llm.generate(["a", "b", "c"])]
        assert texts == ["One.", "Two.", "Three."]
        assert engine_of(llm).unused == []


def test_an_exhausted_script_says_who_came_and_what_it_had() -> None:
    with scripted(["One.", Answer("Two.", when="rain")]) as llm:
        say(llm)
        with pytest.raises(ScriptError) as caught:
            say(llm, "And now for something else")
        message = str(caught.value)
        assert "request 2" in message and "And now for something else" in message
        assert "1. 'One.' (given 1 times)" in message and "when 'rain' (given 0 times)" in message
        assert [answer.text for answer in engine_of(llm).unused] == ["Two."]


def test_answers_for_certain_requests_stand_before_those_in_order() -> None:
    script = [
        Answer("next"),
        Answer("rainy", when="rain"),
        Answer("sunny", when=re.compile("sun|heat"), times=1),
        Answer("long", when=lambda request: len(request.prompt) > 50),
    ]
    with scripted(script) as llm:
        prompts = ["the rain", "a sun", "rain again", "heat", "x" * 60]
        said = [say(llm, prompt).text for prompt in prompts]
        assert said == ["rainy", "sunny", "rainy", "next", "long"]


def test_a_match_is_sought_in_the_last_message() -> None:
    with scripted([Answer("yes", when="Rome"), Answer("no")]) as llm:
        other = [*USER, {"role": "assistant", "content": "?"}, {"role": "user", "content": "Hm"}]
        assert llm.chat(other)[0].outputs[0].text == "no"
        assert llm.chat(USER)[0].outputs[0].text == "yes"


def test_a_function_answers() -> None:
    def answer(request: ScriptedRequest) -> Answer | str | None:
        if request.messages is None:
            return request.prompt.upper() if request.index < 2 else None
        return Answer(f"{len(request.messages)} messages, {len(request.tools or ())} tools")

    with scripted(answer) as llm:
        assert say(llm, "shout").text == "SHOUT"
        assert llm.chat(USER, tools=[WEATHER])[0].outputs[0].text == "1 messages, 1 tools"
        with pytest.raises(ScriptError, match=r"request 3.*it gave None"):
            say(llm)


def test_requests_are_kept_for_assertions() -> None:
    with scripted(["a", "b"]) as llm:
        llm.chat(USER, tools=[WEATHER], session_id="thread-1")
        say(llm, "Hello", max_tokens=5, stop=["x"])
        chat, plain = engine_of(llm).requests
        assert (chat.messages, chat.session_id, plain.messages) == (USER, "thread-1", None)
        assert chat.tools is not None and chat.tools[0]["function"]["name"] == "get_weather"
        assert "What is the weather" in chat.prompt and chat.prompt.endswith("assistant\n")
        assert (plain.prompt, plain.params.max_tokens, plain.index) == ("Hello", 5, 1)


@pytest.mark.parametrize("script", [[7], [[]], [["a"]], None, 3.5])
def test_what_is_no_script_is_refused(script: Any) -> None:
    with pytest.raises((ConfigError, TypeError)):
        ScriptedEngine(script)


# ------------------------------------------------------------------ what is said


def test_text_of_all_kinds_comes_out_as_it_is() -> None:
    for text in (api_service.GERMAN, " spaces ", "line\n\nline\t", "<tool_call>", '{"a": 1}', ""):
        with scripted(text) as llm:
            one = say(llm, skip_special_tokens=False)
            assert (one.text.removesuffix("<|im_end|>"), one.finish_reason) == (text, "stop")


def test_pieces_come_one_in_a_step() -> None:
    pieces = ["Once ", "upon a", " time"]
    with scripted(Answer(pieces), real_time=False) as llm:
        engine = engine_of(llm)
        stepped: list[int] = []
        execute = engine._executor.execute

        def counting(plan: Any) -> Any:
            result = execute(plan)
            stepped.extend(len(tokens) for tokens in result.tokens.values())
            return result

        engine._executor.execute = counting  # type: ignore[method-assign]
        assert say(llm).text == "Once upon a time"
        assert engine.tokenizer is not None
        lengths = [len(engine.tokenizer.encode(piece)) for piece in pieces]
        assert stepped == [*lengths, 1]


def test_calls_are_written_for_the_real_parser() -> None:
    answer = Answer("Let me see.", calls=[CALL, Call("get_weather", '{"city": "Oslo"}')])
    with scripted(answer) as llm:
        message = llm.chat(USER, tools=[WEATHER])[0].outputs[0].message
        assert message is not None and message.content == "Let me see."
        called = [(call.name, call.arguments) for call in message.tool_calls]
        assert called == [
            ("get_weather", '{"city": "Rome"}'),
            ("get_weather", '{"city": "Oslo"}'),
        ]


@pytest.mark.parametrize(
    ("tools", "call", "message"),
    [
        (None, CALL, "calls 'get_weather', but the request offers no tools"),
        ([WEATHER], Call("get_time"), "calls 'get_time', but the request offers only get_weather"),
        ([WEATHER], Call("get_weather", {"town": 1}), "does not follow the structure"),
    ],
)
def test_a_call_that_cannot_be_is_refused(tools: Any, call: Call, message: str) -> None:
    with scripted(Answer(calls=[call])) as llm, pytest.raises(ScriptError, match=message):
        llm.chat(USER, tools=tools)


def test_a_call_in_a_completion_is_refused() -> None:
    with scripted(Answer(calls=[CALL])) as llm, pytest.raises(ScriptError, match="offers no tools"):
        say(llm)


def test_thoughts_are_read_as_thoughts() -> None:
    answer = Answer("Four.", reasoning="Two and two...")
    with scripted(answer, reasoning_parser="think") as llm:
        message = llm.chat(USER)[0].outputs[0].message
        assert message is not None
        assert (message.reasoning, message.content) == ("Two and two...", "Four.")


def test_a_thought_without_a_place_is_refused() -> None:
    with scripted([Answer("x", reasoning="y")] * 2) as llm:
        with pytest.raises(ScriptError, match='reasoning_parser="think"'):
            llm.chat(USER)
        with pytest.raises(ScriptError, match="the request is no chat"):
            say(llm)


def test_a_structure_is_followed_or_it_is_said_where_not() -> None:
    with scripted(['{"a": 1}', '{"a": "one"}', '{"a": 1']) as llm:
        assert say(llm, structured_outputs=OBJECT).text == '{"a": 1}'
        with pytest.raises(ScriptError, match=r"at character 6, after .* may not go on with"):
            say(llm, structured_outputs=OBJECT)
        with pytest.raises(ScriptError, match="it may not end after"):
            say(llm, structured_outputs=OBJECT)


def test_finish_reasons() -> None:
    script = [
        Answer("a b c", finish_reason="length"),
        Answer("a b", finish_reason="abort"),
        "a b c d",
    ]
    with scripted(script) as llm:
        assert [(one.text, one.finish_reason) for one in (say(llm), say(llm))] == [
            ("a b c", "length"),
            ("a b", "abort"),
        ]
        one = say(llm, stop="c")
        assert (one.text, one.finish_reason, one.stop_reason) == ("a b ", "stop", "c")


def test_limits_of_the_request_hold() -> None:
    with scripted(["a b c d", "a"]) as llm:
        assert say(llm, max_tokens=2).finish_reason == "length"
        assert say(llm, ignore_eos=True, max_tokens=5).token_ids[2:] == [2, 2, 2]


def test_sequences_get_an_answer_each() -> None:
    with scripted([[Answer("a"), Answer("b")], "same"]) as llm:
        for wanted in (["a", "b", "a"], ["same"] * 3):
            [output] = llm.generate("x", SamplingParams(n=3))
            assert [one.text for one in output.outputs] == wanted


def test_logprobs() -> None:
    answer = Answer([Token("a", -0.5, {"b": -1.0, "c": -0.25}), "."])
    with scripted(answer) as llm:
        logprobs = say(llm, logprobs=3).logprobs
        first = {one.decoded_token: (one.logprob, one.rank) for one in logprobs[0].values()}
        assert len(first) == 3
        assert first == {"a": (-0.5, 2), "b": (-1.0, 3), "c": (-0.25, 1)}
        assert [one.logprob for one in logprobs[1].values()] == [0.0, -10.0, -11.0]


def test_prompt_logprobs() -> None:
    with scripted("a") as llm:
        [output] = llm.generate("one two", SamplingParams(prompt_logprobs=0))
        assert output.prompt_logprobs is not None
        assert len(output.prompt_logprobs) == len(output.prompt_token_ids)


# ------------------------------------------------------------------ errors and delays


def test_errors_come_at_once() -> None:
    script = [QueueFullError("too much", retry_after=3), Answer(error=InvalidPromptError("no"))]
    with scripted(script) as llm:
        with pytest.raises(QueueFullError, match="too much") as caught:
            say(llm)
        assert caught.value.retry_after == 3
        with pytest.raises(InvalidPromptError, match="no"):
            say(llm)


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
def test_errors_come_in_the_midst_of_a_stream(kind: RequestOutputKind) -> None:
    """All that was said before is read, however fast the reader is."""
    with scripted(Answer("Once upon", error=EngineDeadError("gone"))) as llm:
        text, stream = "", llm.stream("x", SamplingParams(output_kind=kind))
        with pytest.raises(EngineDeadError, match="gone"):
            for output in stream:
                said = output.outputs[0].text
                text = text + said if kind is RequestOutputKind.DELTA else said
                assert not output.finished
        assert text == "Once upon" or kind is RequestOutputKind.CUMULATIVE
        with pytest.raises(EngineDeadError):
            next(stream)


def test_a_failed_request_is_an_output_as_of_a_model() -> None:
    with scripted(Answer("Once", error=RequestFailedError("NaN"))) as llm:
        one = say(llm)
        assert (one.text, one.finish_reason, one.error) == ("Once", "error", "NaN")


async def test_errors_come_in_the_midst_of_an_async_stream() -> None:
    with ScriptedEngine(Answer("Once upon", error=QueueFullError("full"))) as engine:
        text = ""
        params = SamplingParams(output_kind=RequestOutputKind.DELTA)
        with pytest.raises(QueueFullError, match="full"):
            async for output in AsyncLLM(engine=engine).generate("x", params):
                text += output.outputs[0].text
        assert text == "Once upon"


def test_delays_pass_on_the_clock_alone() -> None:
    answer = Answer(["a", Token("b", delay=5), "c"], delay=2, token_delay=0.5)
    with scripted(answer) as llm:
        [output] = llm.generate("x")
        metrics = output.metrics
        assert metrics is not None and metrics.time_to_first_token == 2
        assert metrics.total_time == 2 + 5.5 + 0.5
        assert engine_of(llm).clock() == 8


def test_a_delay_is_a_timeout() -> None:
    with ScriptedEngine(Answer(["a", "b"], token_delay=10)) as engine:
        params = engine.resolve(SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY))
        [output] = engine.submit(engine.parse("x"), params, timeout=5)
        assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("ab", "timeout")


def test_a_real_delay_ends_with_the_engine() -> None:
    with ScriptedEngine(Answer("a", delay=1e6), real_time=True) as engine:
        waits = threading.Event()
        engine._executor._advance, advance = (
            lambda seconds: (waits.set(), advance(seconds)),  # type: ignore[func-returns-value]
            engine._executor._advance,
        )
        stream = LLM(engine=engine).stream("x")
        assert waits.wait(20)
        engine.close()
        with pytest.raises(QuireError):
            list(stream)


@pytest.mark.parametrize(
    "options",
    [{"finish_reason": "length"}, {"finish_reason": "timeout"}, {"error": ValueError("x")}],
)
def test_answers_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Answer(**options)


# ------------------------------------------------------------------ the rest is real


def test_the_prefix_cache_is_real() -> None:
    with scripted(["a", "b"]) as llm:
        prompt = "a prompt of many tokens " * 10
        llm.generate(prompt)
        assert llm.generate(prompt)[0].num_cached_tokens > 40


def test_a_script_survives_preemption() -> None:
    """Tiny cache, small steps, many sequences: each gets its own answer, whole."""
    options: dict[str, Any] = {
        "max_model_len": 48,
        "num_gpu_blocks_override": 16,
        "block_size": 4,
        "max_num_batched_tokens": 8,
    }
    script = [[Answer(f"{i}-{j} " * 8) for j in range(2)] for i in range(8)]
    with scripted(script, **options) as llm:
        outputs = llm.generate([f"p{i}" for i in range(8)], SamplingParams(n=2))
        assert [[one.text for one in output.outputs] for output in outputs] == [
            [answer.text for answer in answers] for answers in script
        ]
        assert any(output.metrics and output.metrics.num_preemptions for output in outputs)


def test_threads_get_one_answer_each() -> None:
    with scripted([str(number) for number in range(32)]) as llm:
        said: list[str] = []
        threads = [
            threading.Thread(target=lambda: said.append(say(llm, "x").text)) for _ in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(int, said)) == list(range(32))


async def test_behind_the_endpoint() -> None:
    script = [
        Answer("Hm.", calls=[CALL]),
        "It is warm.",
        Answer("Half a", error=QueueFullError("full", retry_after=1)),
    ]
    with ScriptedEngine(script) as engine:
        service = Service(engine, ServiceOptions())
        try:
            body = await api_service.chat(service, messages=USER, tools=[WEATHER])
            choice = body["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            call = choice["message"]["tool_calls"][0]
            assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
            result = {"role": "tool", "tool_call_id": call["id"], "content": "30 degrees"}
            turn = [*USER, {**choice["message"]}, result]
            for name in ("refusal", "annotations", "audio", "function_call", "reasoning"):
                turn[1].pop(name, None)
            body = await api_service.chat(service, messages=turn, tools=[WEATHER])
            assert body["choices"][0]["message"]["content"] == "It is warm."
            assert engine.requests[1].last_text == "30 degrees"
            chunks = await api_service.stream_chat(service, messages=USER)
            text = "".join(
                choice["delta"].get("content") or ""
                for chunk in chunks
                for choice in chunk.get("choices", ())
            )
            assert text == "Half a"
            assert chunks[-1]["error"]["code"] == "rate_limit_exceeded"
            with pytest.raises(ScriptError, match="request 4"):
                await api_service.chat(service, messages=USER)
        finally:
            await service.aclose()


def test_many_streams_at_once() -> None:
    async def read(llm: AsyncLLM, number: int) -> str:
        text = ""
        async for output in llm.generate(f"request {number}"):
            text = output.outputs[0].text
        return text

    async def run() -> list[str]:
        def answer(request: ScriptedRequest) -> str:
            return f"answer to {request.prompt}"

        with ScriptedEngine(answer) as engine:
            llm = AsyncLLM(engine=engine)
            return await asyncio.gather(*(read(llm, number) for number in range(20)))

    assert asyncio.run(run()) == [f"answer to request {number}" for number in range(20)]


TEMPLATES = sorted((Path(__file__).parents[1] / "formats" / "templates").iterdir())


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_calls_of_every_format_are_read_as_they_were_scripted(template: Path) -> None:
    """Without a grammar (`ignore_eos`): formats alone."""
    arguments = {"city": 'Rom "1"\n', "days": 3, "sure": True, "at": [1.5, None]}
    schema = {"type": "object", "properties": {name: {} for name in arguments}}
    schema["properties"]["city"] = {"type": "string"}  # type: ignore[index]
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    answers = [
        Answer(calls=[Call("get_weather", arguments)] * count, finish_reason="length")
        for count in (1, 2)
    ]
    with scripted(answers, chat_template=str(template)) as llm:
        for count in (1, 2):
            [output] = llm.chat(USER, SamplingParams(ignore_eos=True), tools=tools)
            message = output.outputs[0].message
            assert message is not None
            read = [(call.name, json.loads(call.arguments)) for call in message.tool_calls]
            assert read == [("get_weather", arguments)] * count
            assert not message.content


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_calls_of_every_format_follow_their_grammar(template: Path, tool_choice: str) -> None:
    """Whatever a tool's arguments are: a grammar that cannot be followed to its end holds up a model."""
    properties = {
        "text": {"type": "string"},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "integer"},
        "level": {"enum": [1, "two"]},
        "sure": {"type": "boolean"},
        "more": {"type": "array", "items": {"type": "string"}},
        "note": {"type": "string"},
    }
    function = {
        "name": "find",
        "parameters": {"type": "object", "properties": properties, "required": ["text"]},
    }
    full = {
        "text": "a <b>\n\n</c",
        "unit": "F",
        "days": 3,
        "level": 1,
        "sure": False,
        "more": ["x"],
    }
    calls = [Call("find", full), Call("find", {"text": "", "note": "last"})]
    answers = [Answer(calls=calls[:1]), Answer(calls=calls[1:]), Answer(calls=calls)]
    with scripted(answers, chat_template=str(template)) as llm:
        for answer in answers:
            tools = [{"type": "function", "function": function}]
            [output] = llm.chat(USER, tools=tools, tool_choice=tool_choice)
            message = output.outputs[0].message
            assert message is not None
            read = [(call.name, json.loads(call.arguments)) for call in message.tool_calls]
            assert read == [(call.name, call.arguments) for call in answer.calls]


def test_arguments_come_in_the_order_of_the_schema() -> None:
    properties = {name: {"type": "integer"} for name in ("a", "b")}
    function = {"name": "f", "parameters": {"type": "object", "properties": properties}}
    with scripted(Answer(calls=[Call("f", {"b": 2, "a": 1})])) as llm:
        [output] = llm.chat(USER, tools=[{"type": "function", "function": function}])
        message = output.outputs[0].message
        assert message is not None and message.tool_calls[0].arguments == '{"a": 1, "b": 2}'


def test_content_before_a_call_that_is_the_whole_answer_is_refused() -> None:
    template = next(str(path) for path in TEMPLATES if path.stem == "llama3_json")
    with (
        scripted(Answer("Hm.", calls=[CALL]), chat_template=template) as llm,
        pytest.raises(ScriptError, match="leave its content out"),
    ):
        llm.chat(USER, tools=[WEATHER])


@pytest.mark.parametrize("arguments", ["{", "[1]", [1]])
def test_arguments_that_are_no_object_are_refused(arguments: Any) -> None:
    with (
        scripted(Answer(calls=[Call("get_weather", arguments)])) as llm,
        pytest.raises(ScriptError, match="are no JSON object"),
    ):
        llm.chat(USER, tools=[WEATHER])


# ------------------------------------------------------------------ embeddings


def test_embeddings_tell_what_has_words_in_common() -> None:
    facts = ["The red tower is in Rome.", "A blue boat sails to Oslo.", "Cats sleep all day."]
    with scripted([], embedding_size=128) as llm:
        vectors = [one.outputs.embedding for one in llm.embed([*facts, "Where is the red tower?"])]
        assert {len(vector) for vector in vectors} == {128}
        assert sum(value * value for value in vectors[0]) == pytest.approx(1)
        cosines = [sum(a * b for a, b in zip(one, vectors[-1], strict=True)) for one in vectors[:3]]
        assert cosines[0] == max(cosines) > 0.5 > max(cosines[1:])
        assert llm.embed(facts[0])[0].outputs.embedding == vectors[0]
        ranked = [one.index for one in llm.rerank("the blue boat", facts)]
        assert ranked[0] == 1


def test_embeddings_of_long_texts_come_in_chunks() -> None:
    options: dict[str, Any] = {"max_num_batched_tokens": 8, "block_size": 4, "max_model_len": 64}
    text = "one two three four five six seven eight nine ten eleven"
    with scripted([], **options) as small, scripted([]) as large:
        [cut], [whole] = small.embed(text), large.embed(text)
        assert cut.outputs.embedding == whole.outputs.embedding
