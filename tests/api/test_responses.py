"""/v1/responses without HTTP: the object, the official sequence of events, the store, cancelling."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from api_service import CALL, GERMAN, Pace, respond, service, stream_response
from quire.api.calls import Call, Stream
from quire.api.protocol import ResponsesRequest
from quire.api.response_store import ResponseStore
from quire.api.service import Service, ServiceOptions
from quire.errors import InvalidParamsError, NotFoundError

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def prompt_of(made: Service, **body: Any) -> str:
    """What the model sees, read off the tokens that are counted and the template."""
    seen: list[str] = []
    parse_chat = made.engine.parse_chat

    def spy(messages: list[dict[str, Any]], **template: Any) -> Any:
        parsed = parse_chat(messages, **template)
        assert made.engine.tokenizer is not None
        seen.append(made.engine.tokenizer.decode(parsed.token_ids, skip_special_tokens=False))
        return parsed

    made.engine.parse_chat = spy  # type: ignore[method-assign]
    try:
        await respond(made, **body)
    finally:
        made.engine.parse_chat = parse_chat  # type: ignore[method-assign]
    return seen[0]


async def test_an_answer_is_openais() -> None:
    async with service() as made:
        body = await respond(made, input="Hello there!", metadata={"a": "b"}, temperature=0.5)
    answer = Response.model_validate(body, strict=True)
    assert answer.output_text == "Paris is the capital."
    assert (answer.status, answer.model, answer.metadata) == ("completed", "tiny", {"a": "b"})
    assert (answer.temperature, answer.error, answer.incomplete_details) == (0.5, None, None)
    assert answer.usage is not None and answer.usage.output_tokens == 7
    assert answer.usage.total_tokens == answer.usage.input_tokens + 7


async def test_a_stream_is_openais() -> None:
    pace = Pace()
    async with service(GERMAN, pace=pace) as made:
        events = await stream_response(made, pace=pace, input="Hello there!", top_logprobs=1)
    parsed = [EVENT.validate_python(event.data) for event in events]
    assert [event.name for event in events] == [event.type for event in parsed]
    assert [event.sequence_number for event in parsed] == list(range(len(parsed)))
    deltas = [event for event in parsed if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert [event.type for event in parsed if event not in deltas] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in deltas) == GERMAN
    by_type = {event.type: event for event in parsed}
    done = by_type["response.output_text.done"]
    assert done.text == GERMAN
    assert [one.token for one in done.logprobs] == [
        one.token for event in deltas for one in event.logprobs
    ]
    final = by_type["response.completed"].response
    Response.model_validate(events[-1].data["response"], strict=True)
    assert (final.status, final.output_text) == ("completed", GERMAN)
    assert final.output[0].id == done.item_id == by_type["response.output_item.added"].item.id
    assert by_type["response.created"].response.status == "in_progress"
    assert by_type["response.created"].response.output == []


async def test_length_makes_it_incomplete() -> None:
    async with service() as made:
        body = await respond(made, input="x", max_output_tokens=2)
        events = await stream_response(made, input="x", max_output_tokens=2)
    for answer in (body, events[-1].data["response"]):
        parsed = Response.model_validate(answer, strict=True)
        assert parsed.status == "incomplete"
        assert parsed.incomplete_details is not None
        assert parsed.incomplete_details.reason == "max_output_tokens"
    assert events[-1].name == "response.incomplete"


async def test_input_of_all_forms() -> None:
    async with service() as made:
        assert await prompt_of(made, input="Hi") == "<s><|user|>Hi</s><|assistant|>"
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "message", "id": "m", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
            {"role": "developer", "content": "c"},
        ]  # fmt: skip
        assert await prompt_of(made, input=items, instructions="Be brief.") == (
            "<s><|system|>Be brief.</s><|user|>a</s><|assistant|>b</s><|system|>c</s><|assistant|>"
        )


async def test_an_answer_is_gone_on_from() -> None:
    async with service("Yes.") as made:
        first = await respond(made, input="One", instructions="System.")
        second = await stream_response(made, input="Two", previous_response_id=first["id"])
        last = second[-1].data["response"]
        assert last["previous_response_id"] == first["id"]
        prompt = await prompt_of(made, input="Three", previous_response_id=last["id"])
    assert prompt == (
        "<s><|user|>One</s><|assistant|>Yes.</s><|user|>Two</s><|assistant|>Yes.</s>"
        "<|user|>Three</s><|assistant|>"
    )


async def test_a_stored_answer_is_its_tenants() -> None:
    async with service() as made:
        mine = Call("a", tenant="me")
        body = await respond(made, mine, input="x")
        assert (await made.retrieve_response(body["id"], mine)).body == body
        for stranger in (Call("b"), Call("b", tenant="you")):
            for method in (made.retrieve_response, made.cancel_response, made.delete_response):
                with pytest.raises(NotFoundError):
                    await method(body["id"], stranger)
            with pytest.raises(NotFoundError) as caught:
                await respond(made, stranger, input="y", previous_response_id=body["id"])
            assert caught.value.param == "previous_response_id"
        with pytest.raises(InvalidParamsError, match="has ended with status 'completed'"):
            await made.cancel_response(body["id"], mine)
        assert (await made.delete_response(body["id"], mine)).body["deleted"] is True
        with pytest.raises(NotFoundError):
            await made.retrieve_response(body["id"], mine)


async def test_without_store_nothing_is_kept() -> None:
    async with service() as made:
        body = await respond(made, input="x", store=False)
        events = await stream_response(made, input="x", store=False)
        for response_id in (body["id"], events[-1].data["response"]["id"]):
            with pytest.raises(NotFoundError):
                await made.retrieve_response(response_id, CALL)


async def test_in_the_background() -> None:
    pace = Pace()
    async with service(pace=pace) as made:
        body = await respond(made, input="x", background=True)
        Response.model_validate(body, strict=True)
        assert (body["status"], body["output"]) == ("in_progress", [])
        pace.let_go()
        while body["status"] == "in_progress":
            await asyncio.sleep(0)
            body = (await made.retrieve_response(body["id"], CALL)).body
    assert Response.model_validate(body, strict=True).output_text == "Paris is the capital."


async def test_cancelling_what_is_made_in_the_background() -> None:
    pace = Pace()
    async with service(next_token=lambda tokenizer: lambda ids: 65, pace=pace) as made:
        body = await respond(made, input="x", background=True)
        pace.let_go()
        cancelled = (await made.cancel_response(body["id"], CALL)).body
        again = (await made.cancel_response(body["id"], CALL)).body
        with pytest.raises(InvalidParamsError, match="'cancelled'"):
            await respond(made, input="y", previous_response_id=body["id"])
    assert Response.model_validate(cancelled, strict=True).status == "cancelled"
    assert again == cancelled


async def test_cancelling_a_stream_ends_it() -> None:
    async with service(next_token=lambda tokenizer: lambda ids: 65, max_model_len=512) as made:
        request = made.parse(ResponsesRequest, {"input": "x", "stream": True})[0]
        stream = await made.responses(request, CALL)
        assert isinstance(stream, Stream)
        created = await anext(stream.events)
        response_id = created.data["response"]["id"]
        assert (await made.cancel_response(response_id, CALL)).body["status"] == "cancelled"
        rest = [event async for event in stream.events]
        assert rest[-1].name == "response.incomplete"
        assert rest[-1].data["response"]["status"] == "cancelled"
        stored = (await made.retrieve_response(response_id, CALL)).body
        assert stored["status"] == "cancelled"


async def test_a_reader_who_leaves_cancels() -> None:
    pace = Pace()
    async with service(pace=pace) as made:
        request = made.parse(ResponsesRequest, {"input": "x", "stream": True})[0]
        stream = await made.responses(request, CALL)
        assert isinstance(stream, Stream)
        created = await anext(stream.events)
        await stream.events.aclose()
        stored = await made.retrieve_response(created.data["response"]["id"], CALL)
    assert stored.body["status"] == "cancelled"


async def test_a_failure_is_an_answer() -> None:
    def fails(ids: Any) -> str:
        return "NaN in /home/somebody/secret"

    async with service(fails=fails) as made:
        events = await stream_response(made, input="x")
        response_id = events[-1].data["response"]["id"]
        stored = (await made.retrieve_response(response_id, CALL)).body
    assert events[-1].name == "response.failed"
    failed = Response.model_validate(stored, strict=True)
    assert failed.status == "failed" and failed.error is not None
    assert "secret" not in str(stored)


async def test_the_store_is_bounded() -> None:
    options = ServiceOptions(served_model_names=("tiny",), max_stored_responses=2)
    async with service(options=options) as made:
        bodies = [await respond(made, input=text) for text in "abc"]
        with pytest.raises(NotFoundError):
            await made.retrieve_response(bodies[0]["id"], CALL)
        for body in bodies[1:]:
            await made.retrieve_response(body["id"], CALL)


class _Answer:
    def __init__(self, name: str, size: int) -> None:
        self.id, self.tenant, self.size = name, None, size
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def test_the_longest_unused_goes_first() -> None:
    store = ResponseStore[_Answer](max_count=3, max_bytes=100)
    a, b, c = (_Answer(name, 30) for name in "abc")
    for answer in (a, b, c):
        store.put(answer)
    store.get("a", None, "id")
    store.put(_Answer("d", 35))
    assert [name for name in "abcd" if name in store] == ["a", "c", "d"]
    assert (a.cancelled, b.cancelled, c.cancelled) == (False, True, False)
    assert store.num_bytes == 95
    a.size = 40
    store.put(a)
    assert (len(store), store.num_bytes) == (2, 75)
    store.clear()
    assert (len(store), store.num_bytes) == (0, 0)
