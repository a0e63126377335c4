"""LlamaIndex's messages in OpenAI's shape and OpenAI's answers in LlamaIndex's, without a model."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.llms import ChatMessage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llama_index.llms.quire.messages import (
    openai_message,
    openai_messages,
    openai_tool_choice,
    session_of,
)
from llama_index.llms.quire.responses import (
    ChatStream,
    chat_response,
    completion_of,
    tool_selections,
)

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452")
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1, "b": 2}'}}


def test_the_arguments_of_a_call_go_back_as_they_were_written() -> None:
    block = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs='{"a":1, "b": 2}')
    expected = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert openai_message(ChatMessage(role="assistant", blocks=[block])) == expected
    parsed = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 1, "ü": 2})
    [call] = openai_message(ChatMessage(role="assistant", blocks=[parsed]))["tool_calls"]
    assert call["function"]["arguments"] == '{"a": 1, "ü": 2}'
    left = ChatMessage(role="assistant", content="Hm.", additional_kwargs={"tool_calls": [CALL]})
    assert openai_message(left) == {"role": "assistant", "content": "Hm.", "tool_calls": [CALL]}


def test_calls_that_were_cut_off_do_not_end_the_conversation() -> None:
    """Endpoints refuse arguments that are no JSON, and would in every later turn."""
    for cut in ('{"a": 1', "[1]", ""):
        block = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs=cut)
        noted = {**CALL, "function": {"name": "add", "arguments": cut}}
        for message in (
            ChatMessage(role="assistant", blocks=[block]),
            ChatMessage(role="assistant", additional_kwargs={"tool_calls": [noted]}),
        ):
            [call] = openai_message(message)["tool_calls"]
            assert call["function"] == {"name": "add", "arguments": "{}"}


def test_roles() -> None:
    sent = [openai_message(ChatMessage(role=role, content="x"))["role"] for role in (
        "system", "developer", "user", "assistant", "chatbot", "model", "tool", "function",
    )]  # fmt: skip
    assert sent == [
        "system",
        "developer",
        "user",
        "assistant",
        "assistant",
        "assistant",
        "tool",
        "tool",
    ]
    result = ChatMessage(role="tool", content="3", additional_kwargs={"tool_call_id": "c1"})
    assert openai_message(result) == {"role": "tool", "content": "3", "tool_call_id": "c1"}


def test_texts_of_one_role_in_a_row_are_one() -> None:
    history = [ChatMessage(role=role, content=text) for role, text in [
        ("system", "a"), ("system", "b"), ("user", "c"), ("user", "d"),
        ("assistant", "e"), ("assistant", "f"),
    ]]  # fmt: skip
    assert [(one["role"], one["content"]) for one in openai_messages(history)] == [
        ("system", "a\n\nb"), ("user", "c\n\nd"), ("assistant", "e"), ("assistant", "f"),
    ]  # fmt: skip
    named = [ChatMessage("a", additional_kwargs={"name": "Ann"}), ChatMessage("b")]
    assert len(openai_messages(named)) == 2


def test_blocks() -> None:
    data = base64.b64encode(PNG).decode()
    blocks: dict[str, Any] = {
        "image": ImageBlock(image=PNG, detail="low"),
        "url": ImageBlock(url="https://example.org/a.png"),
        "audio": AudioBlock(audio=b"abc", format="wav"),
        "video": VideoBlock(url="https://example.org/a.mp4"),
        "file": DocumentBlock(data=b"%PDF-1.4", title="a.pdf", document_mimetype="application/pdf"),
    }
    sent = {}
    for name, block in blocks.items():
        message = ChatMessage(
            blocks=[TextBlock(text="see"), block, CachePoint(cache_control=CacheControl(type="a"))]
        )
        text, sent[name] = openai_message(message)["content"]
        assert text == {"type": "text", "text": "see"}
    assert sent["image"]["image_url"] == {"url": f"data:image/png;base64,{data}", "detail": "low"}
    assert sent["url"]["image_url"] == {"url": "https://example.org/a.png"}
    assert sent["audio"]["input_audio"] == {
        "data": base64.b64encode(b"abc").decode(),
        "format": "wav",
    }
    assert sent["video"]["video_url"] == {"url": "https://example.org/a.mp4"}
    assert sent["file"]["file"]["filename"] == "a.pdf"
    assert base64.b64decode(sent["file"]["file"]["file_data"].split(",")[1]) == b"%PDF-1.4"


def test_cited_texts_and_thoughts() -> None:
    cited = [
        CitableBlock(title="t", source="s", content="one"),
        CitationBlock(cited_content="two", source="s", title="t", additional_location_info={}),
    ]
    assert openai_message(ChatMessage(blocks=cited))["content"] == "one\ntwo"
    thought = ChatMessage(
        role="assistant", blocks=[ThinkingBlock(content="Hm"), TextBlock(text="Yes")]
    )
    assert openai_message(thought) == {
        "role": "assistant", "content": "Yes", "reasoning_content": "Hm"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "required", "sent"),
    [
        (None, False, "auto"),
        (None, True, "required"),
        ("any", False, "required"),
        ("none", True, "none"),
        ("add", False, {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_tool_choices(choice: str | None, required: bool, sent: Any) -> None:
    assert openai_tool_choice(choice, required) == sent


def test_the_session_of_a_memory() -> None:
    kept = ChatMessage("x", additional_kwargs={"session_id": "m1"})
    assert session_of([ChatMessage("y"), kept]) == "m1"
    assert session_of([ChatMessage("y")]) is None


def answer(**message: Any) -> ChatCompletion:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    usage = {
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }  # fmt: skip
    body = {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return ChatCompletion.model_validate({**body, "choices": [choice]})


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_of_an_answer(name: str) -> None:
    response = chat_response(answer(content="Yes", **{name: "Hm"}))
    thought, text = response.message.blocks
    assert isinstance(thought, ThinkingBlock) and isinstance(text, TextBlock)
    assert (thought.content, thought.num_tokens, text.text) == ("Hm", 1, "Yes")
    assert response.additional_kwargs == {
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cached_tokens": 2
    }  # fmt: skip
    assert completion_of(response).text == "Yes"


def test_an_answer_goes_back_as_it_came() -> None:
    response = chat_response(answer(content=None, reasoning="Hm", tool_calls=[CALL]))
    assert openai_message(response.message) == {
        "role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm"
    }  # fmt: skip
    [call] = tool_selections(response)
    assert (call.tool_id, call.tool_name, call.tool_kwargs) == ("c1", "add", {"a": 1, "b": 2})


def test_pieces_of_a_stream() -> None:
    def piece(**delta: Any) -> ChatCompletionChunk:
        choice = {"index": delta.pop("index", 0), "delta": delta, "finish_reason": None}
        body = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return ChatCompletionChunk.model_validate({**body, "choices": [choice]})

    def call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
        return {
            "index": index,
            "function": {"arguments": arguments, **first.pop("of", {})},
            **first,
        }

    stream = ChatStream()
    thinking = stream.add(piece(role="assistant", reasoning="Hm"))
    assert thinking.additional_kwargs == {"thinking_delta": "Hm"}
    assert stream.add(piece(content="other", index=1)).message.content == ""
    assert stream.add(piece(content="Yes")).delta == "Yes"
    begun = stream.add(piece(tool_calls=[call(0, '{"a"', id="c1", of={"name": "add"})]))
    stream.add(piece(tool_calls=[call(0, ":1}"), call(1, '{"b": "x', id="c2", of={"name": "say"})]))
    last = stream.add(piece(tool_calls=[call(1, 'y"}')]))
    assert [one.tool_kwargs for one in tool_selections(begun)] == [{}]
    assert [(one.tool_id, one.tool_name, one.tool_kwargs) for one in tool_selections(last)] == [
        ("c1", "add", {"a": 1}), ("c2", "say", {"b": "xy"}),
    ]  # fmt: skip
    kinds = [type(block) for block in last.message.blocks]
    assert kinds == [ThinkingBlock, TextBlock, ToolCallBlock, ToolCallBlock]
