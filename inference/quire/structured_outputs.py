"""The shape that a request's text must have, by vLLM's names.

A value object of the standard library alone. It checks that one shape is asked for, of the right type; what
the shape means and whether it can be enforced is `quire.grammar`'s.
"""

from __future__ import annotations

import dataclasses
import json as json_module
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quire.errors import InvalidParamsError, UnknownParamError, suggest

Validator = Callable[[Any], Any]  # a field's value -> None or True, or False; or raises ValueError

MAX_RETRIES = 100

# Names that vLLM has, or had, and what to do today.
RETIRED = {
    "backend": "there is one backend",
    "disable_any_whitespace": "text between JSON's parts is fixed; `whitespace_pattern` frees it",
    "disable_additional_properties": 'write "additionalProperties": false into the schema',
    "disable_fallback": "there is one backend",
}

# A regular expression of blanks, tabs and line ends alone.
_BLANK = r"(?:[ \t\n\r]|\\[tnr])"
_ONLY_BLANKS = re.compile(rf"(?:{_BLANK}|\[{_BLANK}+\]|\((?:\?:)?|[)|?*+]|\{{\d+(?:,\d*)?\}})*")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of a shape that is a whole answer's: the content's own shape, and the thought before it.

    Args:
        content: what was asked for.
        start, end: tags of the thought.
        is_open: the prompt ends within it.
    """

    content: StructuredOutputsParams
    start: str
    end: str
    is_open: bool


@dataclass(kw_only=True)
class StructuredOutputsParams:
    """Exactly one shape of a text.

    Args:
        json: a JSON schema: a dict, its text, or a pydantic model class, which is replaced by its schema
            (without other fields than its own, where it would ignore them).
        regex: a regular expression that matches the whole text (Rust's syntax; no look-around).
        choice: the texts to choose from.
        grammar: a context-free grammar in Lark's or GBNF's notation, beginning at `start` or `root`.
        json_object: True: any JSON object.
        structural_tag: free text in which each `trigger` begins one of the `structures`, whose content
            follows its schema: {"structures": [{"begin", "schema", "end"}], "triggers": [...]}, or its text.
        whitespace_pattern: with `json` or `json_object`: a regular expression of what may stand between
            JSON's parts; default: one space after commas and colons, as Python's `json.dumps` writes.
        confidence: with `json`, `json_object` or `choice`: report how sure the model was of each field
            (`CompletionOutput.confidence`).
        validators: with `json` or `json_object`: functions by JSON pointer ("/items/*/price"; * is any one
            part), called with a field's value when it is whole. True or None accepts it; False, or a
            ValueError, refuses it: it is taken back, and another one is generated.
        max_retries: how many values of one field may be taken back; the next one stays.
        on_failure: what becomes of a request whose last value is refused too: "report" it in
            `CompletionOutput.validation_errors` and go on, or "raise" RefusedValueError.

    Raises:
        InvalidParamsError: none or several of them, one of a wrong type, or an empty one.
        UnknownParamError: a name that does not exist (a TypeError).
    """

    json: Any = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None
    whitespace_pattern: str | None = None
    confidence: bool = False
    validators: Mapping[str, Validator] | None = None
    max_retries: int = 3
    on_failure: str = "report"
    surroundings: Surroundings | None = dataclasses.field(init=False, default=None, repr=False)

    def __new__(cls, *args: Any, **given: Any) -> StructuredOutputsParams:
        if args:
            raise UnknownParamError("StructuredOutputsParams takes its fields by name")
        for name in given:
            if name not in _FIELDS:
                hint = f": {RETIRED[name]}" if name in RETIRED else suggest(name, _FIELDS)
                raise UnknownParamError(
                    f"unknown field {name!r} of structured_outputs{hint}",
                    param=f"structured_outputs.{name}",
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.json_object is False:
            self.json_object = None
        if self.json is not None:
            self.json = _schema(self.json)
        if self.structural_tag is not None:
            self.structural_tag = _parsed("structural_tag", self.structural_tag)
        given = [name for name in SHAPES if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidParamsError(
                f"structured_outputs needs exactly one of {', '.join(SHAPES)}; got "
                f"{', '.join(given) or 'none'}",
                param="structured_outputs",
            )
        if self.json_object not in (None, True):
            raise _wrong("json_object", "must be True", self.json_object)
        for name in ("regex", "grammar", "whitespace_pattern"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise _wrong(name, "must be a non-empty text", value)
        if self.choice is not None:
            self.choice = _choices(self.choice)
        if self.whitespace_pattern and self.kind not in ("json", "json_object"):
            raise InvalidParamsError(
                "whitespace_pattern goes with json or json_object",
                param="structured_outputs.whitespace_pattern",
            )
        if self.whitespace_pattern and not _ONLY_BLANKS.fullmatch(self.whitespace_pattern):
            raise _wrong(
                "whitespace_pattern",
                r"may match what JSON allows between its parts alone: blanks, \t, \n and \r",
                self.whitespace_pattern,
            )
        self._check_fields()

    def _check_fields(self) -> None:
        """What is asked of the fields of the text."""
        if not isinstance(self.confidence, bool):
            raise _wrong("confidence", "must be True or False", self.confidence)
        if self.confidence and self.kind not in ("json", "json_object", "choice"):
            raise _wrong("confidence", "goes with json, json_object or choice", self.kind)
        if not isinstance(self.max_retries, int) or isinstance(self.max_retries, bool):
            raise _wrong("max_retries", "must be a whole number", self.max_retries)
        if not 0 <= self.max_retries <= MAX_RETRIES:
            raise _wrong("max_retries", f"must be between 0 and {MAX_RETRIES}", self.max_retries)
        if self.on_failure not in ("report", "raise"):
            raise _wrong("on_failure", "must be 'report' or 'raise'", self.on_failure)
        if self.validators is None:
            return
        if self.kind not in ("json", "json_object"):
            raise _wrong("validators", "goes with json or json_object", self.kind)
        if not isinstance(self.validators, Mapping):
            raise _wrong("validators", "must map JSON pointers to functions", self.validators)
        for path, function in self.validators.items():
            if not (isinstance(path, str) and (path == "" or path.startswith("/"))):
                raise _wrong("validators", 'must have JSON pointers such as "/name" as keys', path)
            if not callable(function):
                raise _wrong(f"validators[{path!r}]", "must be a function", function)

    @property
    def watches_fields(self) -> bool:
        """Whether anything is asked of single fields."""
        if self.surroundings is not None:
            return self.surroundings.content.watches_fields
        return self.confidence or bool(self.validators)

    @property
    def kind(self) -> str:
        """The name of the shape that is asked for."""
        return next(name for name in SHAPES if getattr(self, name) is not None)


SHAPES = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_FIELDS = {
    field.name: field.default for field in dataclasses.fields(StructuredOutputsParams) if field.init
}


def _schema(value: Any) -> dict[str, Any] | bool:
    """A schema as parsed JSON; a pydantic class gives its own."""
    make = getattr(value, "model_json_schema", None)
    if isinstance(value, type) and callable(make):
        value = _closed(make())
    if isinstance(value, bool):
        return value
    parsed = _parsed("json", value, "a JSON schema or a pydantic model class", (dict, bool))
    assert isinstance(parsed, dict | bool)
    return parsed


def _closed(schema: Any) -> Any:
    """A pydantic model's schema without fields of other names, which the model would ignore.

    Models that allow or forbid them say so in their schemas, and that holds.
    """
    assert isinstance(schema, dict), "pydantic's schemas are objects"
    for one in (schema, *schema.get("$defs", {}).values()):
        if one.get("type") == "object" and "properties" in one:
            one.setdefault("additionalProperties", False)
    return schema


def _parsed(
    name: str, value: Any, what: str = "a JSON object", types: tuple[type, ...] = (dict,)
) -> Any:
    """The value, or what its text says."""
    if isinstance(value, str):
        try:
            value = json_module.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidParamsError(
                f"structured_outputs.{name} is not JSON: {error}",
                param=f"structured_outputs.{name}",
            ) from None
    if not isinstance(value, types):
        raise _wrong(name, f"must be {what}", value)
    return value


def _choices(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not value:
        raise _wrong("choice", "must be a non-empty list of texts", value)
    for text in value:
        if not isinstance(text, str) or not text:
            raise _wrong("choice", "must hold non-empty texts", text)
    return list(value)


def _wrong(name: str, must: str, value: Any) -> InvalidParamsError:
    shown = repr(value)
    return InvalidParamsError(
        f"structured_outputs.{name} {must}, got {shown[:100]}", param=f"structured_outputs.{name}"
    )
