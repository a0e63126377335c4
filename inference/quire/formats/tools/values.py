"""Values that formats write without JSON: which parameters are plain text, and what text stands for.

One rule for grammar and parser: a parameter is plain text if its schema says nothing but that it is a
string, or one of some strings. Everything else is JSON, or Python's `True`, `False` and `None`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_PLAIN = {
    "type",
    "description",
    "title",
    "default",
    "enum",
    "const",
    "examples",
    "$defs",
    "definitions",
}
_PYTHON = {"True": "true", "False": "false", "None": "null"}


def is_plain_text(schema: Any) -> bool:
    """Whether a parameter of this schema is written without quotes."""
    if not isinstance(schema, Mapping) or not schema.keys() <= _PLAIN:
        return False
    values = choices(schema)
    return schema.get("type") == "string" or (
        bool(values) and all(isinstance(v, str) for v in values)
    )


def choices(schema: Mapping[str, Any]) -> list[Any]:
    """The values that a schema allows, where it lists them."""
    return [schema["const"]] if "const" in schema else list(schema.get("enum") or [])


def as_json(text: str) -> str:
    """JSON for a value as the model wrote it; text that is neither JSON nor Python's is a string."""
    text = text.strip()
    text = _PYTHON.get(text, text)
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
