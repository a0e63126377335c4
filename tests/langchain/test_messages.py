"""LangChain's messages in the endpoint's shape."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_quire.messages import to_openai

CALL = {"name": "add", "args": {"a": 1, "city": "Zürich"}, "id": "c1", "type": "tool_call"}
CALLED = {
    "id": "c1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "city": "Zürich"}'},
}
PIXEL = "aGVsbG8="


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SystemMessage("s"), {"role": "system", "content": "s"}),
        (
            SystemMessage("s", additional_kwargs={"__openai_role__": "developer"}),
            {"role": "developer", "content": "s"},
        ),
        (HumanMessage("h", name="kofi"), {"role": "user", "content": "h", "name": "kofi"}),
        (ChatMessage("c", role="user"), {"role": "user", "content": "c"}),
        (AIMessage("a"), {"role": "assistant", "content": "a"}),
        (AIMessage(""), {"role": "assistant", "content": ""}),
        (
            AIMessage("", tool_calls=[CALL]),
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        ),
        (
            ToolMessage("3", tool_call_id="c1", name="add"),
            {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"},
        ),
        (
            AIMessage("a", additional_kwargs={"reasoning_content": "r"}),
            {"role": "assistant", "content": "a", "reasoning": "r"},
        ),
    ],
)
def test_one_message(message: BaseMessage, expected: dict[str, Any]) -> None:
    assert to_openai([message]) == [expected]


def test_calls_that_were_cut_off_do_not_end_the_conversation() -> None:
    """Endpoints refuse arguments that are no JSON, and would in every later turn."""
    cut = {"name": "add", "args": '{"a": ', "id": "c1", "error": "", "type": "invalid_tool_call"}
    [one] = to_openai([AIMessage("", invalid_tool_calls=[cut])])
    assert one["tool_calls"][0]["function"] == {"name": "add", "arguments": "{}"}


def test_blocks_of_an_answer() -> None:
    blocks: list[str | dict[str, Any]] = [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "one "},
        "two",
        {"type": "tool_call", "id": "c1", "name": "add", "args": CALL["args"]},
        {"type": "tool_use", "id": "c1", "name": "add", "input": CALL["args"]},
    ]
    assert to_openai([AIMessage(blocks, tool_calls=[CALL])]) == [
        {"role": "assistant", "content": "one two", "reasoning": "hm", "tool_calls": [CALLED]}
    ]
    thinking = AIMessage([{"type": "thinking", "thinking": "hm", "signature": "x"}])
    assert to_openai([thinking]) == [{"role": "assistant", "content": "", "reasoning": "hm"}]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ),
        (
            {"type": "image", "url": "http://x/y.png"},
            {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
            {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
        ),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
            },
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}},
            {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
        ),
        (
            {"type": "audio", "base64": PIXEL, "mime_type": "audio/wav"},
            {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}},
        ),
    ],
)
def test_data_blocks(block: dict[str, Any], part: dict[str, Any]) -> None:
    said: list[str | dict[str, Any]] = ["Look:", block]
    text = {"type": "text", "text": "Look:"}
    assert to_openai([HumanMessage(said)]) == [{"role": "user", "content": [text, part]}]


def test_results_among_blocks_are_messages() -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [{"type": "text", "text": "3"}],
    }
    told = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    assert to_openai([HumanMessage([result])]) == [told]
    assert to_openai([HumanMessage([result, {"type": "text", "text": "so?"}])]) == [
        told,
        {"role": "user", "content": "so?"},
    ]


def test_turns_of_one_speaker_become_one() -> None:
    image = {"type": "image_url", "image_url": {"url": "u"}}
    said = to_openai(
        [
            SystemMessage("s1"),
            SystemMessage("s2"),
            HumanMessage("h1"),
            HumanMessage([image]),
            HumanMessage("h3", name="ann"),
            AIMessage("a1"),
            AIMessage("a2"),
            ToolMessage("t1", tool_call_id="1"),
            ToolMessage("t2", tool_call_id="2"),
        ]
    )
    assert [one["content"] for one in said] == [
        "s1\ns2", [{"type": "text", "text": "h1"}, image], "h3", "a1", "a2", "t1", "t2",
    ]  # fmt: skip


def test_messages_without_a_role() -> None:
    with pytest.raises(ValueError, match="ToolMessage"):
        to_openai([FunctionMessage("f", name="n")])
    with pytest.raises(ValueError, match="'remove' has no role"):
        to_openai([RemoveMessage(id="1")])
