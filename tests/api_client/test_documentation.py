"""The examples of docs/clients.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import quire
from live_server import MODEL, live_server

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def blocks() -> list[str]:
    """Its indented code, block by block."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(encoding="utf-8"), re.M)
    return [re.sub("^    ", "", block, flags=re.M) for block in found]


def test_examples(capsys: Any) -> None:
    first, *others = blocks()
    with live_server() as live:
        first = first.replace("http://localhost:8000", live.url)
        names: dict[str, Any] = {}
        exec(first.replace("path/or/hub-name", str(quire.bundled_model())), names)
        remote = names["connection"].__class__(MODEL, base_url=live.url)
        assert remote.load().context_window() == 2048
        remote.close()
    assert len(others) == 6
    for block in others:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "Paris" in printed
    assert re.search(r"1 \d+ 2048 True$", printed, re.M)
    assert re.search(r"^1\n512$", printed, re.M)
    assert "a budget of 4.00 GiB" in printed
    assert quire.memory_budget().engines == ()
