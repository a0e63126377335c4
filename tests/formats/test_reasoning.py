"""Thoughts told from answers: found, whole, at every split, opened by the prompt or by the model."""

from __future__ import annotations

import pytest

from quire.errors import ConfigError
from quire.formats.answer import AnswerFormat
from quire.formats.reasoning import FORMATS, find_reasoning
from quire.formats.tools import find_tool_format
from tool_formats import TOOLS, read, said, splits

THINK = FORMATS[0]
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def test_tags_are_found_and_named() -> None:
    assert find_reasoning("{{ '<think>\n' }}") is THINK
    assert find_reasoning("no tags") is None
    assert find_reasoning("[THINK]") is FORMATS[1]
    assert find_reasoning(None, "deepseek_r1") is find_reasoning("", "qwen3") is THINK
    with pytest.raises(ConfigError, match="did you mean 'think'"):
        find_reasoning(None, "thinks")


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("", "<think>\nHm.\n\nYes.\n</think>\n\nIt is 4.", ("Hm.\n\nYes.", "It is 4.")),
        ("", "\n<think></think>4", ("", "4")),
        ("", "4 <think>5</think>", ("", "4 <think>5</think>")),
        ("", "  4 ", ("", "  4 ")),
        ("", "<thin", ("", "<thin")),
        ("", "<think>\nHm </thin", ("Hm </thin", "")),
        ("<think>\n", "Hm.\n</think>\n\n4", ("Hm.", "4")),
        ("<think>\n", "<think>Hm.</think>4", ("Hm.", "4")),
        ("<think>\n", "Hm. and then it was cut", ("Hm. and then it was cut", "")),
        ("<think>\n\n</think>\n\n", "4", ("", "4")),
    ],
)
def test_thoughts_at_every_split(prompt: str, text: str, expected: tuple[str, str]) -> None:
    how = AnswerFormat(reasoning=THINK, prompt="<|im_start|>assistant\n" + prompt)
    for pieces in splits(text):
        assert said(read(how, pieces))[:2] == expected


def test_calls_come_after_thoughts() -> None:
    how = AnswerFormat(find_tool_format(None, "hermes"), TOOLS, THINK, "<think>\n")
    text = f"Shall I write {CALL}?\n</think>\n\nYes.\n{CALL}"
    for pieces in splits(text):
        assert said(read(how, pieces)) == (f"Shall I write {CALL}?", "Yes.", [("now", "{}")])
