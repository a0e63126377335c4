"""/v1/chat/completions without HTTP: shapes, streams, fields, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from api_service import CALL, GERMAN, Pace, chat, service, stream_chat
from quire.api.calls import Call
from quire.api.protocol import ChatCompletionRequest
from quire.api.service import ServiceOptions
from quire.errors import InvalidParamsError, ModelNotFoundError, PromptTooLongError, RequestError


def texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    """The text of each choice, put together from its deltas."""
    found: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            found.setdefault(choice["index"], "")
            found[choice["index"]] += choice["delta"].get("content", "")
    return found


async def test_an_answer_is_openais() -> None:
    async with service() as made:
        body = await chat(made, model="alias")
    answer = ChatCompletion.model_validate(body, strict=True)
    assert answer.id == "chatcmpl-a-call"
    assert answer.model == "alias"
    [choice] = answer.choices
    assert choice.message.content == "Paris is the capital."
    assert choice.message.role == "assistant"
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens > 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    json.dumps(body, allow_nan=False)


async def test_a_stream_is_openais() -> None:
    async with service() as made:
        chunks = await stream_chat(made)
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    assert parsed[0].choices[0].delta.role == "assistant"
    assert parsed[0].choices[0].delta.content == ""
    assert [chunk.choices[0].finish_reason for chunk in parsed] == [None] * (len(parsed) - 1) + [
        "stop"
    ]
    assert all(chunk.choices[0].delta.role is None for chunk in parsed[1:])
    assert {chunk.id for chunk in parsed} == {"chatcmpl-a-call"}
    assert texts(chunks) == {0: "Paris is the capital."}
    assert all("usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("extra", [{}, {"stop": ["🎉🎉", "zzz"]}, {"max_tokens": 7}])
async def test_deltas_are_the_whole_text(n: int, extra: dict[str, Any]) -> None:
    fields = {"n": n, **extra}
    async with service(GERMAN) as made:
        whole = await chat(made, **fields)
    pace = Pace()
    async with service(GERMAN, pace=pace) as made:
        chunks = await stream_chat(made, pace, **fields)
    expected = {choice["index"]: choice["message"]["content"] for choice in whole["choices"]}
    assert len(expected) == n
    assert texts(chunks) == expected
    assert len(chunks) > 5 * n
    assert not any("\ufffd" in text for text in expected.values()) or extra == {"max_tokens": 7}
    ends = [c for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(end["index"] for end in ends) == list(range(n))
    assert {(e["finish_reason"], e["stop_reason"]) for e in ends} == {
        (c["finish_reason"], c["stop_reason"]) for c in whole["choices"]
    }


async def test_usage_at_the_end_of_a_stream() -> None:
    async with service() as made:
        whole = await chat(made)
        chunks = await stream_chat(made, stream_options={"include_usage": True})
    *others, last = chunks
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], whole["usage"]["total_tokens"])
    assert [chunk["usage"] for chunk in others] == [None] * len(others)
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] > 0, "the same prompt again"


async def test_usage_so_far() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    pace = Pace()
    async with service(pace=pace) as made:
        chunks = await stream_chat(made, pace, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[0] == 1 < counts[-1]
    assert chunks[-1]["choices"] == []


async def test_logprobs() -> None:
    fields = {"logprobs": True, "top_logprobs": 2, "skip_special_tokens": False}
    pace = Pace()
    async with service(GERMAN) as made:
        body = await chat(made, **fields)
    async with service(GERMAN, pace=pace) as made:
        chunks = await stream_chat(made, pace, **fields)
    answer = ChatCompletion.model_validate(body, strict=True)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == answer.usage.completion_tokens  # type: ignore[union-attr]
    spelled = b"".join(bytes(token.bytes or ()) for token in logprobs.content)
    assert spelled.decode().removesuffix("</s>") == GERMAN
    assert any(token.token.startswith("bytes:\\x") for token in logprobs.content)
    assert {len(token.top_logprobs) for token in logprobs.content} == {2}
    assert logprobs.content[0].logprob == logprobs.content[0].top_logprobs[0].logprob == -0.5
    streamed = [
        token
        for chunk in chunks
        for choice in chunk["choices"]
        for token in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == body["choices"][0]["logprobs"]["content"]


async def test_logprobs_alone_have_no_others() -> None:
    async with service() as made:
        body = await chat(made, logprobs=True)
    content = body["choices"][0]["logprobs"]["content"]
    assert {len(token["top_logprobs"]) for token in content} == {0}


async def test_fields_of_vllm() -> None:
    async with service() as made:
        body = await chat(made, return_token_ids=True, prompt_logprobs=1, logprobs=True,
                          return_tokens_as_token_ids=True)  # fmt: skip
    [choice] = body["choices"]
    assert len(choice["token_ids"]) == body["usage"]["completion_tokens"]
    assert len(body["prompt_token_ids"]) == body["usage"]["prompt_tokens"]
    first, second, *_ = body["prompt_logprobs"]
    assert first is None
    assert second[str(body["prompt_token_ids"][1])]["logprob"] == -0.5
    assert choice["logprobs"]["content"][0]["token"] == f"token_id:{choice['token_ids'][0]}"


async def test_the_stop_string_is_told() -> None:
    async with service() as made:
        body = await chat(made, stop=" the")
    [choice] = body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Paris is", "stop")
    assert choice["stop_reason"] == " the"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_length(name: str) -> None:
    async with service() as made:
        body = await chat(made, **{name: 2})
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 2


async def test_a_least_length_is_held_against_the_requests_own_limit() -> None:
    async with service(max_model_len=128) as made:
        body = await chat(made, min_tokens=20, max_tokens=24, ignore_eos=True)
        assert body["usage"]["completion_tokens"] == 24
        body = await chat(made, min_tokens=20)
        assert body["usage"]["completion_tokens"] >= 20


async def test_without_a_limit_a_chat_goes_on_to_the_end_of_the_context() -> None:
    async with service(next_token=lambda tokenizer: lambda ids: 65, max_model_len=64) as made:
        body = await chat(made)
        limited = await chat(made, max_tokens=20)
    assert body["usage"]["total_tokens"] == 64
    assert limited["usage"]["completion_tokens"] == 20


async def test_the_models_own_limit_holds_where_the_request_has_none() -> None:
    async with service(
        next_token=lambda tokenizer: lambda ids: 65, generation_defaults={"max_tokens": 5}
    ) as made:
        assert (await chat(made))["usage"]["completion_tokens"] == 5
        assert (await chat(made, max_tokens=9))["usage"]["completion_tokens"] == 9


async def test_the_prompt_is_the_rendered_conversation() -> None:
    async with service() as made:
        tokenizer = made.engine.tokenizer
        assert tokenizer is not None

        async def prompt(**fields: Any) -> str:
            body = await chat(made, return_token_ids=True, **fields)
            return tokenizer.decode(body["prompt_token_ids"], skip_special_tokens=False)

        plain = await prompt()
        assert plain == "<s><|user|>Hello there!</s><|assistant|>"
        assert await prompt(add_generation_prompt=False) == "<s><|user|>Hello there!</s>"
        turns = [*[{"role": "user", "content": "a"}], {"role": "assistant", "content": "b c"}]
        assert (await prompt(messages=turns, continue_final_message=True)).endswith("b c")
        parts = [{"role": "developer", "content": [{"type": "text", "text": "be brief"}]}]
        assert "<|system|>be brief" in await prompt(messages=parts)


async def test_tool_messages_of_earlier_turns_are_rendered() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "call f"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    async with service() as made:
        body = await chat(made, messages=messages, return_token_ids=True)
        tokenizer = made.engine.tokenizer
        assert tokenizer is not None
        prompt = tokenizer.decode(body["prompt_token_ids"], skip_special_tokens=False)
    assert '[call]{"name": "f", "arguments": {"a": 1}}[/call]' in prompt
    assert "<|tool|>42" in prompt


async def test_variables_of_the_template() -> None:
    template = "{{ greeting }}{% for m in messages %}{{ m.name }}:{{ m.content }}{% endfor %}"
    options = ServiceOptions(
        default_chat_template_kwargs={"greeting": "Hi "}, trust_request_chat_template=True
    )
    messages = [{"role": "user", "content": "x", "name": "Ann"}]
    async with service(options=options) as made:
        tokenizer = made.engine.tokenizer
        assert tokenizer is not None
        for kwargs, expected in ((None, "Hi Ann:x"), ({"greeting": "Yo "}, "Yo Ann:x")):
            body = await chat(made, messages=messages, chat_template=template,
                              chat_template_kwargs=kwargs, return_token_ids=True)  # fmt: skip
            assert tokenizer.decode(body["prompt_token_ids"]) == expected
        with pytest.raises(RequestError, match="chat_template_kwargs may not set"):
            await chat(made, chat_template_kwargs={"tokenize": True})
        with pytest.raises(InvalidParamsError, match="must be a Jinja template"):
            await chat(made, chat_template="/etc/hostname")


async def test_templates_of_requests_are_refused_by_default() -> None:
    async with service() as made:
        with pytest.raises(InvalidParamsError, match="--trust-request-chat-template") as caught:
            await chat(made, chat_template="{{ messages }}")
    assert caught.value.param == "chat_template"


async def test_what_is_wrong_is_told_before_a_stream_begins() -> None:
    async with service() as made:
        with pytest.raises(
            ModelNotFoundError, match=r"`nobody` does not exist\. Served here: `tiny`"
        ):
            await stream_chat(made, model="nobody")
        with pytest.raises(PromptTooLongError) as caught:
            await stream_chat(made, messages=[{"role": "user", "content": "x" * 5000}])
        assert caught.value.param == "messages"
        with pytest.raises(InvalidParamsError, match="vocabulary"):
            await stream_chat(made, logit_bias={"100000": 1})
        with pytest.raises(InvalidParamsError, match="max_logprobs"):
            await stream_chat(made, logprobs=True, top_logprobs=21)
        with pytest.raises(InvalidParamsError, match="scheduling-policy"):
            await stream_chat(made, priority=3)
        with pytest.raises(RequestError):
            await stream_chat(made, n=2, temperature=0)


async def test_who_names_the_answer() -> None:
    async with service() as made:
        request = made.parse(
            ChatCompletionRequest,
            {"messages": [{"role": "user", "content": "x"}], "request_id": "mine"},
        )[0]
        for call, expected in (
            (Call("servers"), "chatcmpl-mine"),
            (Call("headers", named=True), "chatcmpl-headers"),
        ):
            reply = await made.chat_completions(request, call)
            assert reply.body["id"] == expected  # type: ignore[union-attr]


async def test_a_low_temperature_is_a_warning() -> None:
    async with service() as made:
        body = {"messages": [{"role": "user", "content": "x"}], "temperature": 0.001}
        request = made.parse(ChatCompletionRequest, body)[0]
        reply = await made.chat_completions(request, CALL)
    assert reply.warnings == ("temperature 0.001 was raised to 0.01",)
