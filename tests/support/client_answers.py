"""What openai's clients give, as plain data of which a remote and an in-process one can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import openai
import pydantic

OF_ONE_CALL = {
    "id", "_request_id", "created", "created_at", "completed_at", "item_id", "response_id", "call_id",
}  # fmt: skip


def shape(value: Any) -> Any:
    """An answer with the types of all its objects and which fields were set; without ids and times."""
    if isinstance(value, pydantic.BaseModel):
        fields = {**value.__dict__, **(value.model_extra or {})}
        given = sorted(value.model_fields_set | set(value.model_extra or {}))
        return type(value).__name__, given, shape(fields)
    if isinstance(value, dict):
        return {
            key: type(item).__name__ if key in OF_ONE_CALL else shape(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [shape(item) for item in value]
    return type(value).__name__, value


def joined(chunks: Iterable[Any]) -> Any:
    """A stream as the sum of its chunks: how its text is cut up depends on who was faster."""
    texts: dict[int, str] = {}
    rest: list[Any] = []
    for chunk in chunks:
        assert not isinstance(chunk, dict)
        data = chunk.to_dict(mode="json")
        for choice in data.get("choices", ()):
            said = choice.get("delta", choice)
            key = "text" if "text" in said else "content"
            texts[choice["index"]] = texts.get(choice["index"], "") + (said.pop(key, None) or "")
        if data.get("type", "").endswith(".delta"):
            texts[data["output_index"]] = texts.get(data["output_index"], "") + data["delta"]
            continue
        data.pop("sequence_number", None)
        entry = [type(chunk).__name__, shape(data)]
        if entry not in rest:
            rest.append(entry)
    return texts, rest


def refusal(error: openai.APIError) -> Any:
    """What a caller sees of an error; the names that are served depend on who serves."""
    response = getattr(error, "response", None)
    return (
        type(error),
        str(error).partition("Served here")[0],
        error.code,
        error.param,
        error.type,
        getattr(error, "status_code", None),
        sorted(error.body) if isinstance(error.body, dict) else error.body,
        response is not None and "x-request-id" in response.headers,
    )
