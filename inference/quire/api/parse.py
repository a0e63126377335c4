"""A request's body, as bytes or a dict, to its model; every fault is a RequestError that names the field.

Works on data of any shape and size in bounded time: depth, keys and numbers are checked before the model
sees them, lists stop at their first fault, and a message tells of ten faults at most.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from quire.api import limits
from quire.api.protocol.fields import Body
from quire.errors import (
    InvalidParamsError,
    RequestError,
    UnknownParamError,
    UnsupportedParamError,
    suggest,
)

_SHOWN = 64  # characters of a name that is not ours
_UNKNOWN = "extra_forbidden"

Model = TypeVar("Model", bound=Body)


def parse(
    model: type[Model], raw: bytes | Mapping[str, Any], allow_unknown: bool = False
) -> tuple[Model, tuple[str, ...]]:
    """Read and check a body.

    Args:
        raw: JSON, or what it would be parsed to; not changed.
        allow_unknown: leave unknown fields out instead of refusing them. Fields that are known to ask
            for what quire does not serve are refused anyway.

    Returns:
        The request, and a warning for each field that was left out.

    Raises:
        UnknownParamError: a field that does not exist, with the nearest one that does.
        UnsupportedParamError: a field of OpenAI's or vLLM's that is not served, with the reason.
        InvalidParamsError: a value of a wrong type or out of its range.
        RequestError: no JSON, or no object.
    """
    data = from_bytes(raw) if isinstance(raw, bytes) else raw
    if not isinstance(data, Mapping):
        raise RequestError("the body must be a JSON object")
    _check_json(data)
    data = _without_neutral(model, data)
    try:
        return model.model_validate(data), ()
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
    unknown = [fault for fault in faults if allow_unknown and fault["type"] == _UNKNOWN]
    known = _without(data, [fault["loc"] for fault in unknown])
    if known == data:
        raise _as_request_error(model, faults, data)
    warnings = tuple(
        f"{_fault(model, fault, data)[1]}; it was ignored"
        for fault in unknown[: limits.VALIDATION_ERRORS]
    )
    request, more = parse(model, known, allow_unknown)
    return request, warnings + more


def from_bytes(raw: bytes) -> Any:
    """Parse JSON; NaN, Infinity and half surrogate pairs are none.

    Raises:
        RequestError: saying where it is no JSON.
    """
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None


def _check_json(value: Any) -> None:
    """Bound depth, keys of an object and numbers, also where the model takes anything."""
    stack: list[tuple[Any, int]] = [(value, 1)]
    while stack:
        container, depth = stack.pop()
        if depth > limits.JSON_DEPTH:
            raise RequestError(f"the body is nested deeper than {limits.JSON_DEPTH} levels")
        if isinstance(container, Mapping) and len(container) > limits.OBJECT_KEYS:
            raise RequestError(f"an object has more than {limits.OBJECT_KEYS} fields")
        for item in container.values() if isinstance(container, Mapping) else container:
            kind = type(item)
            if kind is int:
                if not limits.INT64_MIN <= item <= limits.INT64_MAX:
                    raise RequestError("a number does not fit into 64 bits")
            elif kind is float:
                if not math.isfinite(item):
                    raise RequestError("a number is not finite")
            elif kind is list or kind is dict:
                stack.append((item, depth + 1))


def _without_neutral(model: type[Body], data: Mapping[str, Any]) -> dict[str, Any]:
    """The body without fields that we do not serve and that ask for nothing; refuse the others."""
    kept = {}
    for name, value in data.items():
        refusal = model.refused.get(name)
        if refusal is None:
            kept[name] = value
        elif not refusal.allows(value):
            raise UnsupportedParamError(f"{name} is not supported: {refusal.reason}", param=name)
    return kept


def _as_request_error(
    model: type[Body], faults: Sequence[ErrorDetails], data: Mapping[str, Any]
) -> RequestError:
    """One error for what pydantic found: of a union's branches, what is furthest into the data."""
    by_path: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for fault in faults[: 4 * limits.VALIDATION_ERRORS]:
        path, message = _fault(model, fault, data)
        messages = by_path.setdefault(path, [])
        if message not in messages:
            messages.append(message)
        kinds.setdefault(path, fault["type"])
    paths = [
        path
        for path in by_path
        if not any(other.startswith((f"{path}.", f"{path}[")) for other in by_path)
    ]
    lines = []
    for path in paths[: limits.VALIDATION_ERRORS]:
        messages = by_path[path]
        # "must be a list" says little about a list that is too long for the other branch.
        telling = [text for text in messages if "must be a valid" not in text] or messages
        others = [text.removeprefix(f"{path} ") for text in telling[1:]]
        lines.append(" or ".join([telling[0], *others]))
    message = "; ".join(lines)
    if len(paths) > len(lines):
        message += f"; and {len(paths) - len(lines)} more"
    cls = UnknownParamError if kinds[paths[0]] == _UNKNOWN else InvalidParamsError
    return cls(message, param=paths[0] or None)


def _fault(model: type[Body], fault: ErrorDetails, data: Mapping[str, Any]) -> tuple[str, str]:
    """Path and message of a fault."""
    context = fault.get("ctx", {})
    location = (*fault["loc"], *filter(None, [context.get("param")]))
    path = _path(location, data, whole=fault["type"] in ("missing", "refused"))
    if fault["type"] == _UNKNOWN:
        name = str(fault["loc"][-1])[:_SHOWN]
        known = model.model_fields if len(fault["loc"]) == 1 else _nested_fields(model)
        return path, f"unknown field {path!r}{suggest(name, known)}"
    if fault["type"] == "missing":
        return path, f"{path} is missing"
    text = fault["msg"].replace("Input should be", "must be").replace("String should", "must")
    for kind in ("List", "Dictionary"):
        text = text.replace(f"{kind} should", "must").split(" after validation")[0]
    return path, f"{path} {text}".strip()


def _path(location: Sequence[int | str], data: Any, *, whole: bool) -> str:
    """`messages[0].content` for pydantic's location, without the names that it gives to a union's branches.

    Args:
        whole: the last name is a field although the data does not have it.
    """
    path = ""
    for number, step in enumerate(location):
        if isinstance(step, int):
            path += f"[{step}]"
            data = data[step] if isinstance(data, list) and step < len(data) else None
        elif isinstance(data, Mapping) and step in data:
            path += f".{step[:_SHOWN]}"
            data = data[step]
        elif whole and number == len(location) - 1:
            path += f".{step}"
    return path.removeprefix(".")


@lru_cache(maxsize=32)
def _nested_fields(model: type[Body]) -> tuple[str, ...]:
    definitions = model.model_json_schema().get("$defs", {}).values()
    return tuple({name for one in definitions for name in one.get("properties", {})})


def _without(data: dict[str, Any], locations: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """The data, or a copy of it without the fields at these locations."""
    if not locations:
        return data
    kept: dict[str, Any] = copy.deepcopy(data)
    for location in locations:
        inner: Any = kept
        for step in location[:-1]:
            known = isinstance(inner, Mapping) and step in inner
            if known or (isinstance(inner, list) and isinstance(step, int)):
                inner = inner[step]
        if isinstance(inner, dict):
            inner.pop(location[-1], None)
    return kept
