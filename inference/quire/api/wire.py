"""Answers and events as bytes: JSON, and frames of server-sent events."""

from __future__ import annotations

import json
from typing import Any

from quire.api.calls import Event

DONE = b"data: [DONE]\n\n"  # ends the streams of completions and chat completions


def to_json(value: Any) -> bytes:
    """UTF-8 JSON without spaces; what UTF-8 cannot hold (a lone surrogate) is escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def frame(event: Event) -> bytes:
    """One event as it goes over the wire; JSON holds no line breaks."""
    data = b"data: " + to_json(event.data) + b"\n\n"
    return data if event.name is None else b"event: " + event.name.encode() + b"\n" + data
