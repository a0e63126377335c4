"""What holds for every endpoint: models, tokenizing, the life of a call, what errors may tell."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from openai.types import Model

from api_service import CALL, GERMAN, MESSAGES, chat, complete, service, stream_chat
from quire.api.calls import Call, Stream
from quire.api.errors import error_body
from quire.api.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from quire.api.service import Service, ServiceOptions
from quire.errors import (
    EngineDeadError,
    InvalidParamsError,
    ModelNotFoundError,
    QueueFullError,
    QuireError,
    RequestError,
    RequestFailedError,
)


async def tokens(made: Service, **body: Any) -> dict[str, Any]:
    return (await made.tokenize(made.parse(TokenizeRequest, body)[0], CALL)).body


async def text(made: Service, ids: list[int]) -> str:
    request = made.parse(DetokenizeRequest, {"tokens": ids})[0]
    return str((await made.detokenize(request, CALL)).body["prompt"])


async def test_models() -> None:
    async with service() as made:
        listed = made.models()
        assert listed["object"] == "list"
        assert [Model.model_validate(one, strict=True).id for one in listed["data"]] == [
            "tiny",
            "alias",
        ]
        card = made.model("alias")
        assert card["max_model_len"] == 512
        assert card["permission"][0]["allow_sampling"] is True
        with pytest.raises(ModelNotFoundError):
            made.model("nobody")
    async with service(options=ServiceOptions()) as made:
        assert [one["id"] for one in made.models()["data"]] == ["fake-model"]


async def test_tokenize_and_back() -> None:
    async with service() as made:
        plain = await tokens(made, prompt=GERMAN, add_special_tokens=False, return_token_strs=True)
        assert plain["count"] == len(plain["tokens"]) == len(plain["token_strs"])
        assert plain["max_model_len"] == 512
        assert await text(made, plain["tokens"]) == GERMAN
        special = await tokens(made, prompt=GERMAN)
        assert special["tokens"] == [0, *plain["tokens"]]
        assert special["token_strs"] is None
        long = await tokens(made, prompt="x " * 50_000, add_special_tokens=False)
        assert long["count"] >= 50_000, "longer than the context, and off the event loop"
        body = await chat(made, return_token_ids=True)
        assert (await tokens(made, messages=MESSAGES))["tokens"] == body["prompt_token_ids"]
        with pytest.raises(RequestError, match="out of the vocabulary"):
            await text(made, [5, 500])
        with pytest.raises(ModelNotFoundError):
            await tokens(made, prompt="x", model="nobody")


async def test_long_prompts_are_tokenized_off_the_event_loop() -> None:
    async with service(max_model_len=4096, num_blocks=2048) as made:
        threads: list[str] = []
        parse = made.engine.parse

        def spy(*args: Any, **options: Any) -> Any:
            threads.append(threading.current_thread().name)
            return parse(*args, **options)

        made.engine.parse = spy  # type: ignore[method-assign]
        await complete(made, prompt="x")
        await complete(made, prompt="Hello " * 600)
        await chat(made, messages=[{"role": "user", "content": "Hello " * 600}])
    assert threads[0] == threading.current_thread().name
    assert all(name.startswith("quire-api") for name in threads[1:])


async def test_cancelling_a_call_aborts_it() -> None:
    gate = threading.Event()
    async with service(before_step=lambda plan: gate.wait()) as made:
        request = made.parse(ChatCompletionRequest, {"messages": MESSAGES, "n": 2})[0]
        task = asyncio.create_task(made.chat_completions(request, CALL))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        assert await _idle(made)


async def test_closing_a_stream_aborts_it_even_unread() -> None:
    gate = threading.Event()
    async with service(before_step=lambda plan: gate.wait()) as made:
        request = made.parse(CompletionRequest, {"prompt": ["a", "b"], "stream": True})[0]
        for _ in range(3):
            stream = await made.completions(request, CALL)
            assert isinstance(stream, Stream)
            await stream.events.aclose()
        gate.set()
        assert await _idle(made)
        assert [event async for event in stream.events] == []


async def _idle(made: Service) -> bool:
    """Whether the engine has let go of everything after a step or two."""

    def requests(scheduler: Any) -> int:
        return int(scheduler.num_requests)

    for _ in range(3):
        if not await asyncio.to_thread(made.engine.call, requests):
            return True
    return False


async def test_one_refused_prompt_ends_the_others() -> None:
    gate = threading.Event()
    options = {"max_waiting_requests": 2, "max_num_seqs": 1}
    async with service(before_step=lambda plan: gate.wait(), **options) as made:
        with pytest.raises(QueueFullError) as caught:
            await complete(made, prompt=["a", "b", "c", "d", "e"])
        gate.set()
        assert error_body(caught.value)[0] == 429
        assert await _idle(made)


async def test_a_deadline() -> None:
    async with service(next_token=lambda tokenizer: lambda ids: 65) as made:
        body = await chat(made, timeout=1e-6)
        assert body["choices"][0]["finish_reason"] == "timeout"
        request = made.parse(ChatCompletionRequest, {"messages": MESSAGES, "timeout": 1000})[0]
        reply = await made.chat_completions(request, Call("x", timeout=1e-6))
        assert reply.body["choices"][0]["finish_reason"] == "timeout"  # type: ignore[union-attr]
        chunks = await stream_chat(made, timeout=1e-6)
        assert chunks[-1]["choices"][0]["finish_reason"] == "timeout"


async def test_tenants_share_no_prefixes() -> None:
    async with service() as made:

        async def cached(tenant: str | None, **fields: Any) -> int:
            body = {"prompt": "a long enough prompt to fill blocks", **fields}
            request = made.parse(CompletionRequest, body)[0]
            reply = await made.completions(request, Call("x", tenant=tenant))
            usage = reply.body["usage"]  # type: ignore[union-attr]
            return int(usage["prompt_tokens_details"]["cached_tokens"])

        for tenant, salt in ((None, None), ("a", None), ("b", None), ("a", "s"), (None, "s")):
            assert await cached(tenant, cache_salt=salt) == 0
            assert await cached(tenant, cache_salt=salt) > 0


async def test_priority_where_the_engine_knows_it() -> None:
    async with service(scheduling_policy="priority") as made:
        assert (await complete(made, prompt="x", priority=-5))["choices"]
    async with service() as made:
        assert (await complete(made, prompt="x", priority=0))["choices"]
        with pytest.raises(InvalidParamsError, match="priority has no effect"):
            await complete(made, prompt="x", priority=1)


async def test_a_request_that_the_model_fails_on() -> None:
    def fails(ids: Any) -> str | None:
        return "secret of /home/somebody at 0x7f" if len(ids) > 4 else None

    async with service(fails=fails) as made:
        with pytest.raises(RequestFailedError) as caught:
            await complete(made, prompt="x", n=2)
        status, body = error_body(caught.value)
        assert (status, body["error"]["code"]) == (500, "request_failed")
        chunks = await stream_chat(made)
        assert set(chunks[-1]["error"]) == {"message", "type", "param", "code"}
        for told in (body, chunks[-1]):
            assert "secret" not in str(told) and "0x7f" not in str(told)


async def test_an_engine_that_died() -> None:
    async with service() as made:
        made.engine.close()
        with pytest.raises(EngineDeadError) as caught:
            await chat(made)
    status, body = error_body(caught.value)
    assert (status, body["error"]["type"]) == (503, "server_error")


def test_errors_tell_nothing_they_must_not() -> None:
    dead = EngineDeadError("the engine stopped: RuntimeError: secret prompt in /root/x.py")
    for error in (dead, ValueError("secret"), RequestFailedError("secret"), QuireError("fine")):
        status, body = error_body(error)
        assert status >= 500
        assert "secret" not in str(body)
    status, body = error_body(RequestError("x" * 100_000 + "\ud800", param="p" * 1000))
    assert status == 400
    assert len(str(body).encode()) < 16_384
    error_body(RequestError("\ud800"))[1]["error"]["message"].encode()


async def test_options_reach_parsing() -> None:
    async with service(options=ServiceOptions(allow_unknown_fields=True)) as made:
        _, warnings = made.parse(CompletionRequest, {"prompt": "x", "zzz": 1})
        assert warnings == ("unknown field 'zzz'; it was ignored",)


async def test_two_calls_on_one_engine_keep_apart() -> None:
    async with service(GERMAN) as made:
        answers = await asyncio.gather(*(chat(made, n=2) for _ in range(10)))
        streams = await asyncio.gather(*(stream_chat(made) for _ in range(10)))
    for body in answers:
        assert [choice["message"]["content"] for choice in body["choices"]] == [GERMAN] * 2
    for chunks in streams:
        deltas = [c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"]]
        assert "".join(deltas) == GERMAN
