"""A caller's functions on fields: which one is a field's, and what it says of a value.

It knows fields and functions, and neither threads nor what becomes of a value that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quire.engine.fields import Field
from quire.structured_outputs import Validator


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field whose value was refused; `is_fault`: its function failed in another way than by ValueError."""

    field: Field
    message: str
    is_fault: bool = False


class Validators:
    """Functions by JSON pointer, in which the part * stands for any one part.

    Args:
        functions: of one request.
    """

    def __init__(self, functions: Mapping[str, Validator]) -> None:
        self._functions = [(path.split("/"), function) for path, function in functions.items()]

    def __bool__(self) -> bool:
        return bool(self._functions)

    def covers(self, path: str) -> bool:
        """Whether any function is to see the field at this path."""
        return bool(self._of(path))

    def first_refusal(self, fields: Sequence[Field]) -> Refusal | None:
        """Show the fields to their functions, in order, to the first one that is refused."""
        for field in fields:
            for function in self._of(field.path):
                refusal = _refusal(function, field)
                if refusal is not None:
                    return refusal
        return None

    def _of(self, path: str) -> list[Validator]:
        parts = path.split("/")
        return [
            function
            for pattern, function in self._functions
            if len(pattern) == len(parts)
            and all(own in (part, "*") for own, part in zip(pattern, parts, strict=True))
        ]


def _refusal(function: Validator, field: Field) -> Refusal | None:
    try:
        verdict = function(field.value)
    except ValueError as error:
        return Refusal(field, str(error) or "refused")
    except Exception as error:
        why = f"the validator of {field.path!r} raised {type(error).__name__}: {error}"
        return Refusal(field, why, is_fault=True)
    return Refusal(field, "refused") if verdict is False else None
