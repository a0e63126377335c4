"""/v1/completions without HTTP: prompts of all forms, echo, logprobs, streams."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion

from api_service import GERMAN, Pace, complete, service, stream_completion
from fake_executor import FakeExecutor
from quire.api.service import Service
from quire.engine.engine import Engine
from quire.errors import InvalidParamsError, InvalidPromptError, PromptTooLongError, RequestError


def texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    """The text of each choice, put together from its pieces."""
    found: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return found


async def test_an_answer_is_openais() -> None:
    async with service() as made:
        body = await complete(made, prompt="The capital?")
    answer = Completion.model_validate(body, strict=True)
    assert (answer.id, answer.model, answer.object) == ("cmpl-a-call", "tiny", "text_completion")
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason) == ("Paris is the capital.", "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_a_stream_is_openais() -> None:
    async with service() as made:
        chunks = await stream_completion(
            made, prompt="The capital?", stream_options={"include_usage": True}
        )
    parsed = [Completion.model_construct(**chunk) for chunk in chunks]
    assert all(chunk.id == "cmpl-a-call" and chunk.object == "text_completion" for chunk in parsed)
    assert texts(chunks) == {0: "Paris is the capital."}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 7)


async def test_prompts_of_all_forms() -> None:
    async with service() as made:
        for prompt, count in (("a", 1), (["a", "b"], 2), ([5, 6], 1), ([[5], [6, 7], [8]], 3)):
            body = await complete(made, prompt=prompt)
            assert [choice["index"] for choice in body["choices"]] == list(range(count))
            assert {choice["text"] for choice in body["choices"]} == {"Paris is the capital."}
        assert body["usage"]["prompt_tokens"] == 4
        assert body["usage"]["completion_tokens"] == 21


async def test_choices_count_through_prompts() -> None:
    fields: dict[str, Any] = {"prompt": ["a", "bc"], "n": 2, "echo": True}
    async with service() as made:
        body = await complete(made, **fields)
        chunks = await stream_completion(made, **fields)
    expected = {
        0: "aParis is the capital.",
        1: "aParis is the capital.",
        2: "bcParis is the capital.",
        3: "bcParis is the capital.",
    }
    assert {choice["index"]: choice["text"] for choice in body["choices"]} == expected
    assert texts(chunks) == expected
    assert body["usage"]["prompt_tokens"] == 2 + 3, "a prompt counts once"


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("prompt", ["Füße", [300, 301]])
@pytest.mark.parametrize("extra", [{}, {"n": 3}, {"stop": [" naïve façades: 👋", "zzz"]}])
async def test_pieces_are_the_whole_text(echo: bool, prompt: Any, extra: dict[str, Any]) -> None:
    fields = {"prompt": prompt, "echo": echo, "max_tokens": 100, **extra}
    async with service(GERMAN) as made:
        whole = await complete(made, **fields)
    pace = Pace()
    async with service(GERMAN, pace=pace) as made:
        chunks = await stream_completion(made, pace, **fields)
    expected = {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert texts(chunks) == expected
    assert len(chunks) >= 2  # how many tokens share one depends on who was faster
    assert "\ufffd" not in "".join(expected.values())


async def test_without_a_limit_sixteen_tokens_are_made() -> None:
    async with service(next_token=lambda tokenizer: lambda ids: 65) as made:
        body = await complete(made, prompt="a")
    assert body["usage"]["completion_tokens"] == 16
    assert body["choices"][0]["finish_reason"] == "length"


async def test_logprobs_and_offsets() -> None:
    async with service(GERMAN) as made:
        body = await complete(made, prompt="a", max_tokens=100, logprobs=2)
    answer = Completion.model_validate(body, strict=True)
    [choice] = answer.choices
    logprobs = choice.logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.text_offset is not None
    assert choice.text == GERMAN
    assert set(logprobs.token_logprobs or ()) == {-0.5}
    assert {len(top) for top in logprobs.top_logprobs or ()} == {2}
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        if not token.startswith("bytes:") and token != "</s>":
            assert GERMAN[offset:].startswith(token)
    assert logprobs.text_offset[-1] == len(GERMAN)


async def test_logprobs_in_a_stream_are_those_of_the_whole() -> None:
    fields: dict[str, Any] = {"prompt": "He", "logprobs": 1, "echo": True, "max_tokens": 100}
    async with service(GERMAN) as made:
        whole = await complete(made, **fields)
    pace = Pace()
    async with service(GERMAN, pace=pace) as made:
        chunks = await stream_completion(made, pace, **fields)
    streamed: dict[str, list[Any]] = {}
    for chunk in chunks:
        for name, values in (chunk["choices"][0]["logprobs"] or {}).items():
            streamed.setdefault(name, []).extend(values)
    assert streamed == whole["choices"][0]["logprobs"]
    assert streamed["token_logprobs"][0] is None, "nothing stands before the first token"
    text = whole["choices"][0]["text"]
    assert [text[i : i + 1] for i in streamed["text_offset"][:3]] == ["H", "H", "F"], (
        "<s> is silent"
    )


async def test_token_ids_in_a_stream_are_those_of_the_whole() -> None:
    """Also those of tokens that are a part of a character, and so have no text yet."""
    fields: dict[str, Any] = {"prompt": "He", "return_token_ids": True, "max_tokens": 100}
    async with service("漢字と仮名") as made:
        whole = await complete(made, **fields)
    pace = Pace()
    async with service("漢字と仮名", pace=pace) as made:
        chunks = await stream_completion(made, pace, **fields)
    streamed = [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]
    assert streamed == whole["choices"][0]["token_ids"]


async def test_a_prompt_is_scored() -> None:
    """As evaluation tools do: max_tokens=0 with echo and logprobs."""
    fields: dict[str, Any] = {"prompt": "Hello", "max_tokens": 0, "echo": True, "logprobs": 1}
    async with service() as made:
        body = await complete(made, **fields)
        chunks = await stream_completion(made, **fields)
    [choice] = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Hello", "length")
    assert len(choice["logprobs"]["tokens"]) == body["usage"]["prompt_tokens"]
    assert body["usage"]["completion_tokens"] == 0
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hello"]
    assert chunks[0]["choices"][0]["logprobs"] == choice["logprobs"]


async def test_fields_of_vllm() -> None:
    async with service() as made:
        body = await complete(made, prompt=["He", "Ho"], return_token_ids=True, prompt_logprobs=0)
        chunks = await stream_completion(made, prompt="He", return_token_ids=True)
    for choice in body["choices"]:
        assert len(choice["prompt_logprobs"]) == len(choice["prompt_token_ids"])
        assert len(choice["token_ids"]) == 7
    assert chunks[0]["choices"][0]["prompt_token_ids"] == body["choices"][0]["prompt_token_ids"]
    ids = [i for chunk in chunks for i in chunk["choices"][0]["token_ids"]]
    assert ids == body["choices"][0]["token_ids"]


async def test_special_tokens_of_a_prompt() -> None:
    async with service() as made:
        with_bos = await complete(made, prompt="He", return_token_ids=True)
        without = await complete(made, prompt="He", return_token_ids=True, add_special_tokens=False)
    [first, *rest] = with_bos["choices"][0]["prompt_token_ids"]
    assert rest == without["choices"][0]["prompt_token_ids"]
    assert first == 0


async def test_what_is_wrong_is_told_before_a_stream_begins() -> None:
    async with service() as made:
        with pytest.raises(InvalidPromptError, match="vocabulary"):
            await stream_completion(made, prompt=[1, 500])
        with pytest.raises(PromptTooLongError) as caught:
            await stream_completion(made, prompt=["a", [1, 2], "x" * 600][::2])
        assert caught.value.param == "prompt[1]"
        with pytest.raises(InvalidPromptError, match="empty"):
            await stream_completion(made, prompt="")
        with pytest.raises(InvalidPromptError, match="surrogate"):
            await stream_completion(made, prompt="\ud800")
        with pytest.raises(InvalidParamsError, match="max_logprobs"):
            await stream_completion(made, prompt="a", logprobs=21)
        with pytest.raises(RequestError, match="context"):
            await stream_completion(made, prompt="a", max_tokens=513)


async def test_without_a_tokenizer_ids_are_completed() -> None:
    executor = FakeExecutor(skip_tokenizer_init=True)
    with Engine(executor=executor) as engine:
        made = Service(engine)
        body = await complete(made, prompt=[1, 2], logprobs=0, return_token_ids=True, echo=True)
        await made.aclose()
    [choice] = body["choices"]
    assert choice["text"] == ""
    assert choice["logprobs"]["tokens"][0] == "token_id:1"
