"""Templates of model families, conversations through them, and answers split in every way."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from quire.formats.answer import AnswerFormat, AnswerParser
from quire.formats.deltas import Delta, joined
from quire.formats.tools import Tool

FOLDER = Path(__file__).parents[1] / "formats" / "templates"
TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}
ENDS = ("<|im_end|>\n", "<|eot_id|>", "<|eot|>", "</s>", "<｜end▁of▁sentence｜>",  # noqa: RUF001
        "<|end_of_text|>\n", "<|end|>", "<end>\n")  # fmt: skip

TOOLS = (
    Tool(
        "get_weather",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "integer"},
                "exact": {"type": "boolean"},
                "where": {"type": "object", "additionalProperties": {"type": "number"}},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    ),
    Tool("now", {"type": "object", "properties": {}}),
)


def render(template: str, messages: list[dict[str, Any]], *, open_end: bool = False) -> str:
    """A conversation through a template, as the tokenizer's sandbox would have it."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    tools = [
        {"type": "function", "function": {"name": tool.name, "parameters": tool.parameters}}
        for tool in TOOLS
    ]
    return environment.from_string(template).render(
        messages=messages, tools=tools, add_generation_prompt=open_end
    )


def answer_of(template: str, content: str, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """What the model wrote where a template has this turn of the assistant's."""
    user = {"role": "user", "content": "Hello."}
    made = [
        {"id": f"abcdefgh{n}", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    turn = {"role": "assistant", "content": content, "tool_calls": made}
    before = render(template, [user], open_end=True)
    whole = render(template, [user, turn])
    # Some templates put tools at the end: what they have in common ends before that.
    start = before if whole.startswith(before) else before.replace(before[before.find("<|tool|>"):before.find("<|/tool|>") + 9], "")  # fmt: skip # noqa: E501
    assert whole.startswith(start)
    text = whole[len(start) :]
    text = text[: text.find("<|tool|>")] if "<|tool|>" in text else text
    for end in ENDS:
        text = text.removesuffix(end)
    return text


def read(how: AnswerFormat, pieces: Iterable[str]) -> list[Delta]:
    """All deltas of an answer that comes in pieces."""
    parser = AnswerParser(how)
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return [*deltas, *parser.finish()]


def said(deltas: Iterable[Delta]) -> tuple[str, str, list[tuple[str, str]]]:
    """Reasoning, content and calls of deltas."""
    parts = {"reasoning": "", "content": ""}
    calls: list[tuple[str, str]] = []
    for delta in joined(deltas):
        if delta.kind == "call":
            assert delta.call == len(calls)
            calls.append((delta.text, ""))
        elif delta.kind == "arguments":
            name, before = calls[delta.call]
            calls[delta.call] = (name, before + delta.text)
        else:
            parts[delta.kind] += delta.text
    return parts["reasoning"], parts["content"], calls


def splits(text: str) -> Iterable[list[str]]:
    """The text cut in two at every place, and into characters."""
    yield list(text)
    for at in range(len(text) + 1):
        yield [text[:at], text[at:]]
