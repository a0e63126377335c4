"""Tool-call formats: found from templates, round trips, every split, and what models get wrong."""

from __future__ import annotations

import json
import random
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.errors import ConfigError
from quire.formats.answer import AnswerFormat, read_answer
from quire.formats.tools import FORMATS, find_tool_format
from tool_formats import TEMPLATES, TOOLS, answer_of, read, said, splits

BY_NAME = {one.name: one for one in FORMATS}
WITH_CONTENT = {"hermes", "mistral", "deepseek_v3", "deepseek_v31", "granite", "phi4_mini_json", "qwen3_xml"}  # fmt: skip # noqa: E501
ARGUMENTS: list[dict[str, Any]] = [
    {"city": "Paris"},
    {"city": 'São "Paulo"\n</tool_call> \\ {[', "days": 3, "exact": True, "unit": "C"},
    {"city": "", "where": {"lat": 1.5, "lon": -2}, "tags": ["a", "]", 'b"'], "exact": False},
]


def reading(name: str) -> AnswerFormat:
    return AnswerFormat(BY_NAME[name], TOOLS)


def test_every_format_has_a_template() -> None:
    assert set(TEMPLATES) == set(BY_NAME)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_format_is_found_from_its_template(name: str) -> None:
    found = find_tool_format(TEMPLATES[name])
    assert found is not None and found.name == name


def test_formats_are_named() -> None:
    for one in FORMATS:
        for name in (one.name, *one.aliases):
            assert find_tool_format(None, name) is one
    names = [name for one in FORMATS for name in (one.name, *one.aliases)]
    assert len(names) == len(set(names))
    assert find_tool_format("{{ messages }}") is None
    with pytest.raises(ConfigError, match="did you mean 'hermes'"):
        find_tool_format(None, "hermse")


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_round_trip_at_every_split(name: str, count: int) -> None:
    calls = [("get_weather", one) for one in ARGUMENTS[:count]] + [("now", {})] * (count > 2)
    content = "Let me see." if name in WITH_CONTENT else ""
    text = answer_of(TEMPLATES[name], content, calls)
    whole = said(read(reading(name), [text]))
    assert whole[1] == content
    assert [(call, json.loads(arguments)) for call, arguments in whole[2]] == calls
    for pieces in splits(text):
        assert said(read(reading(name), pieces)) == whole
    message = read_answer(reading(name), text)
    assert [(one.name, one.arguments) for one in message.tool_calls] == whole[2]
    assert message.content == (content or None)
    assert len({one.id for one in message.tool_calls}) == len(message.tool_calls)


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_without_calls_is_content(name: str) -> None:
    for text in (
        "",
        "Hello!",
        " a < b, [1, 2] and {x} \n",
        "\n\n",
        "functions <tool",
        "``` js\nx```",
    ):
        for pieces in splits(text):
            assert said(read(reading(name), pieces)) == ("", text, [])


@pytest.mark.parametrize("name", TEMPLATES)
def test_names_stream_before_arguments_end(name: str) -> None:
    if name == "pythonic":
        return  # a call is known when it is whole
    text = answer_of(TEMPLATES[name], "", [("get_weather", {"city": "A long name of a city"})])
    pieces = [d.text for d in read(reading(name), text) if d.kind == "arguments"]
    assert len(pieces) > 10
    half = text[: text.index("long")]
    assert [d.text for d in read(reading(name), [half]) if d.kind == "call"] == ["get_weather"]


BROKEN = {
    "hermes": [
        '<tool_call>\n{"name": "now", "arguments"',
        "<tool_call>\nnow()\n</tool_call>",
        '<tool_call>\n{"nome": "now"}\n</tool_call>',
        '<tool_call>{"name": 5, "arguments": {}}',
        "<tool_call>" * 9,
    ],
    "llama3_json": [
        '{"name": "Anna", "parameters": {}}',
        '{"a": 1}',
        "[1, 2]",
        "{",
        '{"name": "now"',
    ],
    "pythonic": [
        "[1, 2]",
        "[now(1)]",
        "[other()]",
        "[now(**x)]",
        "[now(a=b)]",
        "[now(",
        "[now()(a=1)]",
    ],
    "mistral": ["[TOOL_CALLS]", "[TOOL_CALLS]no call at all", "[TOOL_CALLS] [{]"],
    "deepseek_v31": ["<｜tool▁call▁begin｜>{", "<｜tool▁calls▁begin｜> sorry"],  # noqa: RUF001
    "qwen3_xml": ["<tool_call>now</tool_call>", "<function=>", "<function", "<tool_call>\n<fun"],
    "json": ['{"name": "x", "arguments": {}}', '```json\n{"a": 1}\n```'],
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in BROKEN.items() for t in texts])
def test_what_is_no_call_stays_content(name: str, text: str) -> None:
    for pieces in splits(text):
        assert said(read(reading(name), pieces)) == ("", text, [])


LOOSE = [
    ("hermes", '<tool_call>{"arguments": {"city": "x"}, "name": "now"}</tool_call>', '{"city": "x"}'),
    ("hermes", '<tool_call>{"name": "now", "arguments": "{\\"a\\": 1}"}</tool_call>', '{"a": 1}'),
    ("hermes", '<tool_call>{"name": "now", "arguments": null}', "{}"),
    ("hermes", '<tool_call>{"id": 5, "type": "x", "function": {"name": "now", "arguments": {}}}', "{}"),
    ("hermes", '<tool_call> [{"name": "now", "parameters": {"a": []}}]\n\n', '{"a": []}'),
    ("llama3_json", '<|python_tag|>{"name": "now", "parameters": {}}', "{}"),
    ("llama3_json", '  {"type": "function", "name": "now", "parameters": {}}', "{}"),
    ("json", '```json\n{"name": "now", "arguments": {}}\n```', "{}"),
    ("mistral", '[TOOL_CALLS]now[CALL_ID]123456789[ARGS]{"a": 1}', '{"a": 1}'),
    ("mistral", '[TOOL_CALLS]now{"a": 1}', '{"a": 1}'),
    ("mistral", '[TOOL_CALLS] [{"name": "now", "arguments": {}}]', "{}"),
    ("phi4_mini_json", 'functools[{"name": "now", "arguments": {}}]', "{}"),
    ("qwen3_xml", "<function=now>\n<parameter=a>\n5\n</parameter>\n</function>", '{"a": 5}'),
    ("qwen3_xml", "<function=now><parameter=a>True</parameter></function></tool_call>", '{"a": true}'),
    ("pythonic", "<|python_start|>[now(a=-1, b=[None, true])]<|python_end|>", '{"a": -1, "b": [null, true]}'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "arguments"), LOOSE)
def test_what_models_write_otherwise_is_read(name: str, text: str, arguments: str) -> None:
    for pieces in splits(text):
        assert said(read(reading(name), pieces)) == ("", "", [("now", arguments)])


def test_text_around_calls() -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    text = f"First.\n\n{call}\n{call}\n Then <b>.\n{call}  "
    for pieces in splits(text):
        assert said(read(reading("hermes"), pieces)) == (
            "",
            "First.Then <b>.",
            [("now", "{}")] * 3,
        )


def test_a_call_that_is_cut_short_keeps_what_there_is() -> None:
    text = '<tool_call>\n{"name": "now", "arguments": {"city": "Par'
    for pieces in splits(text):
        assert said(read(reading("hermes"), pieces)) == ("", "", [("now", '{"city": "Par')])


def test_one_call_where_only_one_is_wanted() -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    how = AnswerFormat(BY_NAME["hermes"], TOOLS, max_calls=1)
    assert said(read(how, [call * 3]))[2] == [("now", "{}")]


SCRAPS = ["<tool_call>", "</tool_call>", '{"name": "now", "arguments": ', '{"a": [1, "x"]}', "}", "[", "]",
          "[TOOL_CALLS]", "[ARGS]", "now", "(", ")", "a=1", ", ", "<function=now>", "<parameter=a>", "\n",
          "</parameter>", "</function>", "<|tool_call|>", "functools", '"', "\\", "```json\n", "é", " ", "; ",
          "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<|python_tag|>", '{"name": "now"}', "<think>"]  # fmt: skip # noqa: RUF001, E501


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(BY_NAME)),
    scraps=st.lists(st.sampled_from(SCRAPS), max_size=14),
    seed=st.integers(0, 9),
)
def test_any_text_is_read_the_same_however_it_is_split(
    name: str, scraps: list[str], seed: int
) -> None:
    text = "".join(scraps)
    whole = said(read(reading(name), [text]))
    assert said(read(reading(name), text)) == whole
    chance = random.Random(seed)
    pieces, rest = [], text
    while rest:
        size = chance.randint(1, 7)
        pieces.append(rest[:size])
        rest = rest[size:]
    assert said(read(reading(name), pieces)) == whole


PUMPS = ["<tool_call>", '{"name": "now", "arguments": {"a": ', '[TOOL_CALLS][{"x": ', "<function=", "\n",
         "[now(a=[", '{"arguments": {"', "\\", "<function=now><parameter=a>\n", "```json", "{"]  # fmt: skip


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_work_is_linear_in_the_text(name: str) -> None:
    """Four times the text takes about four times as many calls of functions, not sixteen times."""
    for pump in (*PUMPS, BY_NAME[name].opening or "[{"):
        calls = []
        for length in (3_000, 12_000):
            text = BY_NAME[name].opening + pump * (length // len(pump))
            calls.append(_num_calls(name, [text[at : at + 9] for at in range(0, len(text), 9)]))
        assert calls[1] < 6 * calls[0], (pump, calls)


def _num_calls(name: str, pieces: list[str]) -> int:
    count = 0

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        read(reading(name), pieces)
    finally:
        sys.setprofile(before)
    return count
