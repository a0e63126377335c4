"""The examples of docs/llamaindex.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import quire
from tiny_encoders import make_encoder

PAGE = Path(__file__).parents[2] / "docs" / "llamaindex.md"

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*langchain-community:DeprecationWarning"),
]


def blocks() -> list[str]:
    """Its indented code, block by block."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(encoding="utf-8"), re.M)
    return [re.sub("^    ", "", block, flags=re.M) for block in found]


def test_examples(capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path) -> None:
    install, *examples = blocks()
    assert "quire[llama-index]" in install
    names: dict[str, Any] = {}
    for said, real in {
        "path/or/hub-name": str(quire.bundled_model()),
        "http://localhost:8000/v1": url,
        "served-name": "quire-mini",
        "path/to/embedder": str(make_encoder(tmp_path / "embedder")),
        "path/to/cross-encoder": str(make_encoder(tmp_path / "reranker", scores=True)),
    }.items():
        examples = [example.replace(said, real) for example in examples]
    for example in examples:
        exec(compile(example, str(PAGE), "exec", dont_inherit=True), names)
    assert str(names["remote"].complete("What is the capital of France?")).endswith("Paris.")
    assert names["partial"] == names["Person"](name="Kofi", age=31)
    printed = capsys.readouterr().out
    for expected in (
        "is Paris.",
        "Rome.",
        "Lima.",
        "Madrid.",
        "132",
        "name='Kofi'",
        "/age",
        "Lisbon",
    ):
        assert expected in printed
    names["index"]._embed_model.close()
    for name in ("rerank", "llm", "remote"):
        names[name].close()
