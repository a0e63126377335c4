"""What LlamaIndex expects of an LLM as an object: events, serialization, errors, cancellation."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from typing import Any

import openai
import pytest
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
)
from llama_index.core.llms import ChatMessage

from llama_index_chats import Make, answer, question
from quire.engine.engine import Engine
from served_engine import Ended

ENDLESS = {"max_tokens": 1900, "ignore_eos": True}


class Heard(BaseEventHandler):
    """Keeps events of chats."""

    events: list[Any] = []  # noqa: RUF012 - pydantic copies it

    @classmethod
    def class_name(cls) -> str:
        return "Heard"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, (LLMChatStartEvent, LLMChatInProgressEvent, LLMChatEndEvent)):
            self.events.append(event)


class LifecycleContract:
    """An LLM as an object."""

    def test_metadata(self, make: Make) -> None:
        metadata = make(max_new_tokens=33).metadata
        assert metadata.context_window == 2048
        assert metadata.num_output == 33
        assert metadata.is_chat_model
        assert metadata.is_function_calling_model
        assert metadata.model_name == "quire-mini"
        assert make(context_window=512).metadata.context_window == 512

    def test_tokens_are_counted_by_the_models_tokenizer(self, make: Make) -> None:
        llm = make()
        counts = llm.complete("Once upon a time", formatted=True).additional_kwargs
        assert llm.get_num_tokens("Once upon a time") == counts["prompt_tokens"]

    def test_callbacks_and_their_token_counts(self, make: Make) -> None:
        debug, counter = LlamaDebugHandler(print_trace_on_end=False), TokenCountingHandler()
        llm = make(callback_manager=CallbackManager([debug, counter]))
        whole = llm.chat(question("France")).additional_kwargs
        assert counter.prompt_llm_token_count == whole["prompt_tokens"]
        assert counter.completion_llm_token_count == whole["completion_tokens"]
        list(llm.stream_chat(question("France")))
        assert counter.prompt_llm_token_count == 2 * whole["prompt_tokens"]
        llm.complete("What is the capital of Peru?")
        pairs = debug.get_event_pairs(CBEventType.LLM)
        assert len(pairs) == 3
        assert pairs[0][1].payload[EventPayload.RESPONSE].message.content == answer("France")

    def test_events(self, make: Make) -> None:
        llm = make()
        heard = Heard(events=[])
        dispatcher = get_dispatcher()
        dispatcher.add_event_handler(heard)
        try:
            items = list(llm.stream_chat(question("France")))
        finally:
            dispatcher.event_handlers.remove(heard)
        assert [type(event) for event in heard.events] == [
            LLMChatStartEvent,
            *[LLMChatInProgressEvent] * len(items),
            LLMChatEndEvent,
        ]
        assert heard.events[0].model_dict["class_name"] == "Vllm"
        assert heard.events[-1].response.message.content == answer("France")

    def test_secrets_are_kept_out_of_sight(self, make: Make) -> None:
        secrets = {"api_key": "a-secret", "default_headers": {"X-Key": "a-secret"}}
        llm = make(**secrets)
        assert llm.chat(question("France")).message.content == answer("France")
        shown = [llm.to_json(), repr(llm), str(llm), json.dumps(llm.to_payload())]
        assert not [one for one in shown if "a-secret" in one]
        assert b"a-secret" not in pickle.dumps(llm)

    def test_serialization(self, make: Make) -> None:
        llm = make(stop=["."], additional_kwargs={"bad_words": ["x"]}, seed=3)
        assert type(llm).from_dict(llm.to_dict()).to_dict() == llm.to_dict()
        assert type(llm).from_json(llm.to_json()).to_dict() == llm.to_dict()
        assert pickle.loads(pickle.dumps(llm)).to_dict() == llm.to_dict()
        assert llm.to_dict()["class_name"] == llm.class_name() == "Vllm"
        assert type(llm).model_json_schema()["properties"]["class_name"]["default"] == "Vllm"

    def test_a_copy_works_by_itself(self, make: Make) -> None:
        llm = make()
        other = copy.deepcopy(llm)
        assert other.chat(question("Peru")).message.content == answer("Peru")
        other.close()
        assert llm.chat(question("Peru")).message.content == answer("Peru")

    def test_a_wrong_field_is_refused_by_name(self, make: Make) -> None:
        llm = make()
        with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'"):
            llm.chat(question("France"), temperatur=1)
        with pytest.raises(openai.BadRequestError, match="temperature") as caught:
            list(llm.stream_chat(question("France"), temperature=-1))
        assert caught.value.param == "temperature"
        assert llm.chat(question("France")).message.content == answer("France")

    async def test_too_long_a_prompt_is_refused(self, make: Make, ended: Ended) -> None:
        llm, asked = make(), [ChatMessage("word " * 3000)]
        for refused in (llm.achat(asked), _first(await llm.astream_chat(asked))):
            with pytest.raises(openai.BadRequestError) as caught:
                await refused
            assert caught.value.code == "context_length_exceeded"
        assert ended.is_idle()

    def test_leaving_a_stream_aborts_it(self, make: Make, ended: Ended) -> None:
        llm = make()
        for stream in (
            llm.stream_chat(question("France"), **ENDLESS),
            llm.stream_complete("Once", formatted=True, **ENDLESS),
        ):
            next(stream)
            stream.close()
            del stream
            assert ended.next().finish_reasons == ("abort",)
        assert ended.is_idle()

    async def test_leaving_an_awaited_stream_aborts_it(self, make: Make, ended: Ended) -> None:
        llm = make()
        for awaited in (
            llm.astream_chat(question("France"), **ENDLESS),
            llm.astream_complete("Once", formatted=True, **ENDLESS),
        ):
            stream = await awaited
            await anext(stream)
            await stream.aclose()
            assert (await ended.anext()).finish_reasons == ("abort",)
        assert ended.is_idle()

    async def test_cancelling_a_task_aborts_its_request(self, make: Make, ended: Ended) -> None:
        llm = make()

        async def follow(started: asyncio.Event) -> None:
            async for _ in await llm.astream_chat(question("France"), **ENDLESS):
                started.set()

        async def wait_for_all(started: asyncio.Event) -> None:
            started.set()
            await llm.achat(question("France"), **ENDLESS)

        for work in (follow, wait_for_all):
            started = asyncio.Event()
            task = asyncio.create_task(work(started))
            await started.wait()
            if work is wait_for_all:
                await ended.until_running()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await ended.anext()).finish_reasons == ("abort",)
        assert ended.is_idle()

    async def test_the_event_loop_goes_on(self, make: Make) -> None:
        """A task that the loop runs while a chat waits for its answer ends before the chat does."""
        llm = make()
        chat = asyncio.create_task(llm.achat(question("France"), max_tokens=300, ignore_eos=True))
        turns = 0
        while not chat.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 10
        assert chat.result().additional_kwargs["completion_tokens"] == 300

    def test_one_object_in_event_loops_one_after_the_other(self, make: Make) -> None:
        async def all_at_once() -> list[Any]:
            chats = [llm.achat(question(one)) for one in ("Peru", "Italy")]
            try:
                return await asyncio.gather(*chats)
            finally:
                if llm.base_url is not None:  # its sockets belong to this loop
                    await llm.aclose()

        llm = make()
        for _ in range(3):
            said = [one.message.content for one in asyncio.run(all_at_once())]
            assert said == [answer("Peru"), answer("Italy")]

    def test_a_session(self, make: Make, engine: Engine) -> None:
        for number, llm in enumerate((make(session_id="a-session"), make())):
            call = {"session_id": "a-session"} if number else {}
            assert llm.chat(question("France"), **call).message.content == answer("France")
            assert llm.complete("What is the capital of Peru?", **call).text == answer("Peru")
            assert engine.end_session("a-session")
            assert not engine.end_session("a-session")

    def test_a_timeout(self, make: Make, ended: Ended) -> None:
        once: dict[str, Any] = {"max_retries": 0}
        for llm, call in ((make(**once), {"timeout": 0.05}), (make(timeout=0.05, **once), {})):
            with pytest.raises(openai.APITimeoutError):
                llm.chat(question("France"), **ENDLESS, **call)
            ended.next()
        assert ended.is_idle()


async def _first(stream: Any) -> Any:
    return await anext(stream)
