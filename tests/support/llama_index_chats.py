"""What LlamaIndex expects of chats and completions; part of `LLMContract`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import openai
import pytest
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.prompts import PromptTemplate

Make = Callable[..., Any]

CAPITALS = {"France": "Paris", "Italy": "Rome", "Peru": "Lima", "Spain": "Madrid"}
PNG = bytes.fromhex("89504e470d0a1a0a")  # enough to be taken for one


def question(country: str) -> list[ChatMessage]:
    return [ChatMessage(f"What is the capital of {country}?")]


def answer(country: str) -> str:
    return f"The capital of {country} is {CAPITALS[country]}."


def check_stream(items: Sequence[ChatResponse] | Sequence[CompletionResponse], text: str) -> None:
    """Each item has all of the text so far, and as delta what it adds; the last has the counts."""
    said = ""
    for item in items:
        said += item.delta or ""
        whole = item.message.content if isinstance(item, ChatResponse) else item.text
        assert (whole or "") == said
    assert said == text
    counted = [item for item in items if "total_tokens" in item.additional_kwargs]
    assert counted == [items[-1]]
    check_counts(items[-1].additional_kwargs)


def check_counts(counts: dict[str, Any]) -> None:
    assert counts["prompt_tokens"] > 0
    assert counts["completion_tokens"] > 0
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]


class ChatContract:
    """Chats, whole and streamed, waiting and awaited."""

    def test_chat(self, make: Make) -> None:
        response = make().chat(question("France"))
        assert isinstance(response, ChatResponse)
        assert response.message.role == MessageRole.ASSISTANT
        assert response.message.content == str(response.message.blocks[0].text) == answer("France")
        assert response.raw.choices[0].finish_reason == "stop"
        check_counts(response.additional_kwargs)

    async def test_achat(self, make: Make) -> None:
        response = await make().achat(question("Italy"))
        assert response.message.content == answer("Italy")
        check_counts(response.additional_kwargs)

    def test_stream_chat(self, make: Make) -> None:
        check_stream(list(make().stream_chat(question("Peru"))), answer("Peru"))

    async def test_astream_chat(self, make: Make) -> None:
        stream = await make().astream_chat(question("Spain"))
        check_stream([item async for item in stream], answer("Spain"))

    def test_conversation(self, make: Make) -> None:
        history = [
            ChatMessage(role="system", content="You are a helpful assistant."),
            ChatMessage(role="user", content="My name is Kofi."),
            ChatMessage(role="assistant", content="Hello Kofi."),
            *question("France"),
        ]
        assert make().chat(history).message.content == answer("France")

    def test_messages_of_one_role_in_a_row(self, make: Make) -> None:
        twice = [ChatMessage(role="system", content="Be short.")] * 2 + question("France") * 2
        assert make().chat(twice).message.content

    def test_messages_of_several_text_blocks(self, make: Make) -> None:
        blocks = [TextBlock(text="What is the capital"), TextBlock(text="of France?")]
        assert "Paris" in (make().chat([ChatMessage(blocks=blocks)]).message.content or "")

    def test_other_names_of_roles(self, make: Make) -> None:
        history = [*question("Italy"), ChatMessage(role="model", content=answer("Italy"))]
        history += [ChatMessage(role="developer", content="Be short."), *question("France")]
        assert make().chat(history).message.content

    def test_images_are_refused_by_a_text_model(self, make: Make) -> None:
        asked = ChatMessage(blocks=[TextBlock(text="What is this?"), ImageBlock(image=PNG)])
        with pytest.raises(openai.BadRequestError, match=r"image_url.*text models only"):
            make().chat([asked])

    def test_usage_tells_cached_tokens(self, make: Make) -> None:
        llm = make()
        asked = [ChatMessage("Once upon a time " * 12), *question("Peru")]
        llm.chat(asked)
        assert llm.chat(asked).additional_kwargs["cached_tokens"] >= 32

    async def test_many_at_once_are_answered_as_one_by_one(self, make: Make) -> None:
        llm = make()
        responses = await asyncio.gather(*[llm.achat(question(one)) for one in CAPITALS])
        assert [one.message.content for one in responses] == [answer(one) for one in CAPITALS]

    def test_predict_and_stream_of_a_template(self, make: Make) -> None:
        llm: LLM = make(system_prompt="You are a helpful assistant.")
        template = PromptTemplate("What is the capital of {country}?")
        assert llm.predict(template, country="France") == answer("France")
        assert "".join(llm.stream(template, country="France")) == answer("France")

    async def test_apredict_and_astream_of_a_template(self, make: Make) -> None:
        llm = make()
        template = PromptTemplate("What is the capital of {country}?")
        assert await llm.apredict(template, country="Peru") == answer("Peru")
        tokens = [token async for token in await llm.astream(template, country="Peru")]
        assert "".join(tokens) == answer("Peru")


class CompletionContract:
    """Completions, by the template and as they are."""

    def test_complete_asks_by_the_template(self, make: Make) -> None:
        response = make().complete("What is the capital of France?")
        assert isinstance(response, CompletionResponse)
        assert response.text == str(response) == answer("France")
        check_counts(response.additional_kwargs)

    def test_complete_as_it_is(self, make: Make) -> None:
        text = make().complete("The capital of France is", formatted=True, max_tokens=3).text
        assert text == " Paris."

    def test_completion_to_prompt(self, make: Make) -> None:
        llm = make(completion_to_prompt=lambda text: f"The capital of {text} is", max_new_tokens=3)
        assert llm.complete("France").text == " Paris."
        assert llm.complete("The capital of Peru is", formatted=True).text != llm.complete("Peru")
        whole = llm.complete("Peru").text
        assert [item.text for item in llm.stream_complete("Peru")][-1] == whole

    def test_a_model_that_completes(self, make: Make) -> None:
        llm = make(is_chat_model=False)
        assert not llm.metadata.is_chat_model
        assert not llm.metadata.is_function_calling_model
        assert llm.complete("The capital of France is", max_tokens=3).text == " Paris."
        assert llm.predict(PromptTemplate("The capital of {of} is"), of="France").startswith(
            " Paris."
        )

    def test_messages_to_prompt(self, make: Make) -> None:
        def layout(messages: Sequence[ChatMessage]) -> str:
            return f"The capital of {messages[-1].content} is"

        llm = make(messages_to_prompt=layout, max_new_tokens=3)
        response = llm.chat([ChatMessage("France")])
        assert response.message.content == " Paris."
        check_counts(response.additional_kwargs)
        assert list(llm.stream_chat([ChatMessage("France")]))[-1].message.content == " Paris."
        with pytest.raises(ValueError, match="messages_to_prompt"):
            llm.chat([ChatMessage("France")], tools=[{"type": "function"}])

    async def test_acomplete(self, make: Make) -> None:
        llm = make()
        assert (await llm.acomplete("What is the capital of Italy?")).text == answer("Italy")
        assert (await llm.acomplete("The capital of Italy is", formatted=True)).text != ""

    def test_stream_complete(self, make: Make) -> None:
        items = list(make().stream_complete("What is the capital of Italy?"))
        check_stream(items, answer("Italy"))

    async def test_astream_complete(self, make: Make) -> None:
        llm = make()
        whole = llm.complete("Once upon a time", formatted=True).text
        stream = await llm.astream_complete("Once upon a time", formatted=True)
        check_stream([item async for item in stream], whole)


class SamplingContract:
    """Options of sampling, in the constructor and in calls."""

    def test_stop_in_the_constructor_and_in_a_call(self, make: Make) -> None:
        llm = make(stop=["Par"])
        assert llm.chat(question("France")).message.content == "The capital of France is "
        assert (
            llm.chat(question("France"), stop=None).message.content == "The capital of France is "
        )
        assert llm.chat(question("France"), stop=["capital"]).message.content == "The "

    def test_lengths(self, make: Make) -> None:
        llm = make(max_new_tokens=3)
        assert llm.metadata.num_output == 3
        story = {"prompt": "Once upon a time", "formatted": True}
        for limit, options in [(3, {}), (5, {"max_tokens": 5}), (6, {"max_new_tokens": 6})]:
            response = llm.complete(**story, **options)
            assert response.additional_kwargs["completion_tokens"] == limit
            assert response.raw.choices[0].finish_reason == "length"
        response = llm.chat(question("France"), max_completion_tokens=2)
        assert response.additional_kwargs["completion_tokens"] == 2

    def test_min_tokens(self, make: Make) -> None:
        response = make(min_tokens=20).chat(question("France"))
        assert response.additional_kwargs["completion_tokens"] >= 20

    def test_all_choices_are_in_raw(self, make: Make) -> None:
        llm = make(n=3, temperature=1.0, seed=3)
        response = llm.complete("Once upon a time", formatted=True)
        texts = [choice.text for choice in response.raw.choices]
        assert len(texts) == 3
        assert response.text == texts[0]
        check_stream(list(llm.stream_complete("Once upon a time", formatted=True)), texts[0])

    def test_seeds(self, make: Make) -> None:
        llm = make(temperature=1.5, seed=1)
        texts = [
            llm.complete("Once upon a time", formatted=True, seed=seed).text for seed in (1, 1, 2)
        ]
        assert texts[0] == texts[1] != texts[2]
        assert llm.complete("Once upon a time", formatted=True).text == texts[0]

    def test_logprobs(self, make: Make) -> None:
        llm = make(logprobs=2, max_new_tokens=4)
        chat = llm.chat(question("France"))
        completion = llm.complete("The capital of France is", formatted=True)
        for response in (chat, completion):
            assert response.logprobs is not None
            assert len(response.logprobs) == 4
            for position in response.logprobs:
                assert len(position) == 2
                assert position[0].logprob == max(one.logprob for one in position) <= 0  # greedy
        tokens = "".join(position[0].token for position in chat.logprobs)
        assert tokens == chat.message.content
        streamed = list(llm.stream_chat(question("France")))
        positions = [one for item in streamed for one in item.logprobs or []]
        assert [one[0].token for one in positions] == [one[0].token for one in chat.logprobs]

    def test_every_field_of_the_endpoint(self, make: Make) -> None:
        llm = make(additional_kwargs={"bad_words": ["Paris"]})
        assert "Paris" not in (llm.chat(question("France")).message.content or "")
        choice = {"structured_outputs": {"choice": ["Rome", "Lima"]}}
        assert make().chat(question("Peru"), **choice).message.content == "Lima"

    def test_sampling_fields_are_sent(self, make: Make) -> None:
        options = {
            "temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "presence_penalty": 0.1,
            "frequency_penalty": 0.2, "repetition_penalty": 1.1, "ignore_eos": True,
            "stop_token_ids": [1], "min_tokens": 1, "seed": 3,
        }  # fmt: skip
        by_constructor = make(**options).complete("Once", formatted=True)
        by_call = make().complete("Once", formatted=True, **options)
        assert by_constructor.text == by_call.text
        for name, value in {"top_p": 2, "top_k": -2, "min_p": 3, "repetition_penalty": -1}.items():
            with pytest.raises(openai.BadRequestError, match=name):
                make(**{name: value}).complete("Once")
