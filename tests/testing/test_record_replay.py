"""What was recorded is replayed the same behind every face; what has drifted is shown."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import api_service
from quire import LLM, Engine, SamplingParams, StructuredOutputsParams
from quire.api.service import Service, ServiceOptions
from quire.errors import ConfigError, DriftError, RequestFailedError, ScriptError
from quire.testing import Answer, Call, ScriptedEngine, record, recorded, replay
from quire.testing.recording import read_recording

USER = [{"role": "user", "content": "What is the weather in Rome?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
GERMAN = "Füße \u2028 & 👩\u200d👩\u200d👧\r\n\x0bend"


def recording(path: Path, script: Any, use: Callable[[LLM], Any], **options: Any) -> Any:
    """Record what `use` asks a scripted engine; what it returned."""
    timing = options.pop("timing", False)
    engine = ScriptedEngine(script, max_model_len=2048, **options)
    assert record(engine, path, timing=timing) is engine
    with engine, LLM(engine=engine) as llm:
        return use(llm)


def replaying(path: Path, use: Callable[[LLM], Any], **options: Any) -> Any:
    with replay(path, **options) as engine, LLM(engine=engine) as llm:
        result = use(llm)
        assert engine.unasked == [] or engine.drifts
        return result


def ask(llm: LLM, prompt: str = "Hello", **params: Any) -> Any:
    return llm.generate(prompt, SamplingParams(**params))[0].outputs[0]


def everything(llm: LLM) -> list[Any]:
    """Requests of many kinds, and what of their answers is to be the same."""
    chat = llm.chat(USER, tools=[WEATHER])[0].outputs[0].message
    assert chat is not None
    shape = StructuredOutputsParams(json={"type": "object"})
    answers: list[Any] = [
        ask(llm, GERMAN),
        ask(llm, "logprobs", logprobs=3),
        ask(llm, "stop", stop=["c"]),
        ask(llm, "cut", max_tokens=2),
        ask(llm, "object", structured_outputs=shape),
        *llm.generate("n", SamplingParams(n=3))[0].outputs,
        *[ask(llm, "again") for _ in range(2)],
        ask(llm, "fails"),
    ]
    streamed = "".join(one.outputs[0].text for one in llm.stream("stream"))
    called = [(call.name, call.arguments) for call in chat.tool_calls]
    return [called, answers, streamed]


SCRIPT: list[Any] = [
    Answer("Hm.", calls=[Call("get_weather", {"city": "Rome"})]),
    GERMAN,
    Answer(["a", "b"]),
    "a b c d",
    "a b c d",
    '{"a": 1}',
    [Answer("one"), Answer("two"), Answer("three")],
    "first",
    "second",
    Answer("half", error=RequestFailedError("NaN")),
    "in a stream",
]


def test_replay_gives_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "all.jsonl"
    asked = recording(path, SCRIPT, everything)
    assert asked[0] == [("get_weather", '{"city": "Rome"}')]
    assert replaying(path, everything) == asked


def test_a_recording_of_the_bundled_model(tmp_path: Path) -> None:
    path = tmp_path / "bundled.jsonl"

    def use(llm: LLM) -> list[Any]:
        told = llm.chat(USER, SamplingParams(max_tokens=8, logprobs=2))[0].outputs
        several = llm.generate("Once", SamplingParams(n=3, seed=1, max_tokens=6))[0].outputs
        # A machine's digits beyond the sixth are its own.
        values = [
            round(v.logprob, 6) for position in told[0].logprobs or [] for v in position.values()
        ]
        return [told[0].text, values, [(one.text, one.token_ids) for one in several]]

    with record({"max_num_seqs": 4}, path) as engine, LLM(engine=engine) as llm:
        asked = use(llm)
    assert replaying(path, use) == asked


def test_the_file_is_made_of_lines_for_readers(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    recording(path, "It is\nwarm.", lambda llm: llm.chat(USER, SamplingParams(temperature=0.5)))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    header, *request = lines
    assert header["quire_recording"] == 1
    assert request[0] == {"params": {"temperature": 0.5, "max_tokens": None}}
    assert request[1:4] == [
        {"prompt": "<|im_start|>user\n"},
        {"prompt": "What is the weather in Rome?<|im_end|>\n"},
        {"prompt": "<|im_start|>assistant\n"},
    ]
    assert request[4]["answer"] == "stop" and request[4]["token_ids"][-1] == 2
    assert request[5:] == [{"text": "It is\n"}, {"text": "warm.<|im_end|>"}]


def test_equal_runs_make_equal_files_without_a_trace_of_the_machine(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = str(Path(__file__).parent)
        recording(tmp_path / name, SCRIPT, everything, model=folder)
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text()
    assert '"model": "./testing"' in text
    assert str(Path(__file__).parents[1]) not in text


def test_a_drifted_prompt_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "weather.jsonl"
    recording(path, ["Warm.", "Cold."], lambda llm: [llm.chat(USER), ask(llm)])
    oslo = [{"role": "user", "content": "What is the weather in Oslo?"}]
    with replay(path) as engine, LLM(engine=engine) as llm:
        with pytest.raises(DriftError) as caught:
            llm.chat(oslo, SamplingParams(max_tokens=9))
        message = str(caught.value)
        assert "the nearest one, number 1, differs" in message
        assert "weather.jsonl" in message and str(tmp_path) not in message
        assert "max_tokens was None, and is 9" in message
        assert "-What is the weather in Rome?" in message
        assert "+What is the weather in Oslo?" in message
        assert engine.unasked != []


def test_a_changed_parameter_is_drift(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    recording(path, "a", lambda llm: ask(llm, stop=["x"]))
    with replay(path) as engine, LLM(engine=engine) as llm:
        with pytest.raises(DriftError, match=r"stop was \['x'\], and is \['y'\]"):
            ask(llm, stop=["y"])
        assert ask(llm, stop=["x"]).text == "a"


def test_the_nearest_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "near.jsonl"
    prompts = ["the weather in Rome", "the score of the game"]
    recording(path, ["warm", "two to one"], lambda llm: [ask(llm, prompt) for prompt in prompts])

    def use(llm: LLM) -> list[str]:
        return [
            ask(llm, "the score of the match").text,
            ask(llm, "the weather in Oslo").text,
            ask(llm, prompts[0], max_tokens=1).finish_reason,
        ]

    with caplog.at_level(logging.WARNING), replay(path, drift="nearest") as engine:
        assert use(LLM(engine=engine)) == ["two to one", "warm", "length"]
        assert len(engine.drifts) == 3
        assert "+the weather in Oslo" in engine.drifts[1]
    assert [one.getMessage() for one in caplog.records] == engine.drifts


def test_a_request_that_comes_once_more_than_recorded(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    recording(path, ["a", "b"], lambda llm: [ask(llm), ask(llm)])
    with replay(path) as engine, LLM(engine=engine) as llm:
        assert [ask(llm).text, ask(llm).text] == ["a", "b"]
        with pytest.raises(DriftError, match="has 2 requests like it, and this is one more"):
            ask(llm)
    with replay(path, drift="nearest") as engine, LLM(engine=engine) as llm:
        assert [ask(llm).text for _ in range(4)] == ["a", "b", "a", "b"]


def test_identical_requests_at_once_get_one_answer_each(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"

    def use(llm: LLM) -> list[str]:
        return sorted(one.outputs[0].text for one in llm.generate(["x"] * 16))

    script = [str(number) for number in range(16)]
    assert recording(path, script, use) == sorted(script) == replaying(path, use)


def test_other_tools_make_another_prompt(tmp_path: Path) -> None:
    path = tmp_path / "tools.jsonl"
    recording(path, "Hm.", lambda llm: llm.chat(USER, tools=[WEATHER]))
    function = {**WEATHER["function"], "name": "get_climate"}  # type: ignore[dict-item]
    with replay(path) as engine, LLM(engine=engine) as llm:
        with pytest.raises(DriftError, match="get_climate"):
            llm.chat(USER, tools=[{"type": "function", "function": function}])
        assert llm.chat(USER, tools=[WEATHER])[0].outputs[0].text == "Hm."


def test_a_recorded_answer_is_held_to_the_grammar_of_now(tmp_path: Path) -> None:
    path = tmp_path / "required.jsonl"
    recording(path, "No call.", lambda llm: llm.chat(USER, tools=[WEATHER]))
    with replay(path) as engine, pytest.raises(ScriptError, match="does not follow the structure"):
        LLM(engine=engine).chat(USER, tools=[WEATHER], tool_choice="required")


def test_an_aborted_request_is_replayed_as_far_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "aborted.jsonl"
    script = Answer("a b", finish_reason="abort")
    first = recording(path, script, lambda llm: ask(llm))
    again = replaying(path, lambda llm: ask(llm))
    assert (again.text, again.finish_reason) == (first.text, "abort") == ("a b", "abort")


def test_time_is_recorded_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "slow.jsonl"
    script = Answer(["a", "b", "c"], delay=2, token_delay=0.5)

    def use(llm: LLM) -> tuple[float | None, float | None]:
        metrics = llm.generate("x")[0].metrics
        assert metrics is not None
        return metrics.time_to_first_token, metrics.total_time

    assert recording(path, script, use, timing=True) == (2, 3)
    assert replaying(path, use) == pytest.approx((2, 3))
    recording(path, script, use)
    assert "seconds" not in path.read_text()
    assert replaying(path, use) == (0, 0)


def test_recorded_is_one_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "auto.jsonl"

    def use(**options: Any) -> tuple[str, str]:
        with recorded(path, max_model_len=256, **options) as engine, LLM(engine=engine) as llm:
            return type(engine).__name__, ask(llm, "Once upon a time", max_tokens=8, seed=1).text

    made, text = use()
    assert made == "Engine"
    assert use() == ("ReplayEngine", text) == use(mode="replay")
    assert use(mode="record") == ("Engine", text)
    with pytest.raises(ConfigError, match="mode must be"):
        use(mode="never")


def test_recording_begins_in_the_midst(tmp_path: Path) -> None:
    """Requests that ran already are left out; an engine goes on being used."""
    path = tmp_path / "late.jsonl"
    with ScriptedEngine(["a", "b"]) as engine, LLM(engine=engine) as llm:
        assert ask(llm, "before").text == "a"
        record(engine, path)
        assert ask(llm, "after").text == "b"
    _, requests = read_recording(path)
    assert [one.prompt for one in requests] == ["after"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "make it with quire.testing.record"),
        ("", "is empty"),
        ("{}\n", "line 1"),
        ('{"quire_recording": 99}\n', "another version"),
        ("HEADER\nnonsense\n", "line 2"),
        ('HEADER\n{"prompt": "of no request"}\n', "line 2"),
        ('HEADER\n{"params": {}}\n{"other": 1}\n', "line 3.*unknown entry"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "broken.jsonl"
    if text is not None:
        recording(path, "a", lambda llm: None)
        path.write_text(text.replace("HEADER", path.read_text().strip()))
    with pytest.raises(ConfigError, match=message):
        replay(path)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    recording(path, "a", lambda llm: ask(llm))
    path.write_text(path.read_text().replace('"vocab_size": 2816', '"vocab_size": 9'))
    with pytest.raises(ConfigError, match="recorded with a tokenizer of 9 tokens"):
        replay(path)
    path.write_text(path.read_text().replace('"model": null', '"model": "./mine"'))
    with pytest.raises(ConfigError, match=r"'mine'.*tokenizer="):
        replay(path)


async def test_behind_the_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.jsonl"
    script = [Answer(calls=[Call("get_weather", {"city": "Rome"})]), "It is warm.", "Streamed."]

    async def use(engine: Engine) -> list[Any]:
        service = Service(engine, ServiceOptions(served_model_names=("m",)))
        async with contextlib.aclosing(service):
            body = await api_service.chat(service, messages=USER, tools=[WEATHER])
            call = body["choices"][0]["message"]["tool_calls"][0]
            turn = [
                *USER,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "content": "30 degrees"},
            ]
            answer = await api_service.chat(service, messages=turn, tools=[WEATHER])
            chunks = await api_service.stream_chat(service)
            deltas = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
            said = "".join(filter(None, deltas))
            return [call["function"], answer["choices"][0]["message"]["content"], said]

    with record(ScriptedEngine(script, max_model_len=2048), path) as engine:
        asked = await use(engine)
    assert asked[1:] == ["It is warm.", "Streamed."]
    with replay(path) as engine:
        assert await use(engine) == asked
        with pytest.raises(DriftError, match="one more"):
            await use(engine)
