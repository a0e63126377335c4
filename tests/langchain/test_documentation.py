"""The examples of docs/langchain.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import quire

PAGE = Path(__file__).parents[2] / "docs" / "langchain.md"


def blocks() -> list[str]:
    """Its indented code, block by block."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(encoding="utf-8"), re.M)
    return [re.sub("^    ", "", block, flags=re.M) for block in found]


def test_examples(capsys: pytest.CaptureFixture[str], url: str) -> None:
    install, first, *others, retrieval = blocks()
    assert "quire[langchain]" in install
    first = first.replace("path/or/hub-name", str(quire.bundled_model()))
    first = first.replace("http://localhost:8000/v1", url).replace("served-name", "quire-mini")
    names: dict[str, Any] = {}
    for block in [first, *others]:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), names)
    exec("from langchain_quire import VLLMEmbeddings, VLLMRerank\n" + retrieval, names)
    assert names["remote"].invoke("What is the capital of France?").text.endswith("Paris.")
    assert [city in one.text for city, one in zip(
        ("Santiago", "Havana", "Bamako"), names["answers"], strict=True
    )] == [True] * 3  # fmt: skip
    printed = capsys.readouterr().out
    for expected in ("is Paris.", "Rome", "Lima", "Madrid", "84", "mood=", "' Rome."):
        assert expected in printed
