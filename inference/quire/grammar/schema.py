"""What of a JSON schema can be enforced, told before anything is compiled, by keyword and path.

JSON Schema draft 2020-12. What this lets pass the compiler enforces, or refuses in its own words: nothing is
ignored that would narrow what is valid. Keywords that say nothing of validity (title, default, ...) and
unknown ones are left alone, as the standard has it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from quire.errors import InvalidParamsError

MAX_BYTES = 256 << 10  # of the schema as JSON
MAX_DEPTH = 32  # schemas within schemas
MAX_PROPERTIES = 1_000  # of all objects of the schema together

MAX_CHAIN = 128  # references from one to the next, without a value in between

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
REFUSED = {
    "not": "list what is allowed instead",
    "if": "write the cases as anyOf",
    "then": "write the cases as anyOf",
    "else": "write the cases as anyOf",
    "contains": "describe the items with items or prefixItems",
    "minContains": "describe the items with items or prefixItems",
    "maxContains": "describe the items with items or prefixItems",
    "uniqueItems": "check it afterwards",
    "dependentRequired": "write the cases as anyOf",
    "dependentSchemas": "write the cases as anyOf",
    "dependencies": "write the cases as anyOf",
    "propertyNames": "use patternProperties with additionalProperties false",
    "unevaluatedItems": "use items",
    "unevaluatedProperties": "use additionalProperties",
    "additionalItems": "use prefixItems and items",
    "$dynamicRef": "use $ref",
    "$dynamicAnchor": "use $ref",
    "$recursiveRef": "use $ref",
    "$recursiveAnchor": "use $ref",
    "x-guidance": "it belongs to the compiler",
}
NEUTRAL = {  # these ask for nothing
    "uniqueItems": (False,),
    "format": ("password", "binary", "path"),  # of OpenAPI and pydantic: any text
}
UNWRITABLE = re.compile(r"(?<!\\)(?:\\\\)*\\u")  # in JSON's notation
SCHEMAS = ("items", "additionalProperties")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
MAPS = ("properties", "patternProperties", "$defs", "definitions")
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
LEAST, MOST = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
NUMBERS = (*LEAST, *MOST, "multipleOf")
EXACT = 2**53  # up to here the compiler, which computes with doubles, knows every whole number
WIDEST = 2**63 - 1024  # the greatest bound that it takes
TEXTS = ("pattern", "format", "$ref", "$id", "$anchor", "$schema")


def check_schema(
    schema: Any, name: str = "structured_outputs.json", place: str = "#"
) -> dict[str, Any]:
    """Check a schema and return it as the compiler takes it; the caller's is not changed.

    Args:
        name: what the caller calls it.
        place: where it stands there.

    Raises:
        InvalidParamsError: it is no JSON schema, too large, or asks for what cannot be enforced.
    """
    return _Check(schema, name, place).run()


def for_compiler(schema: dict[str, Any], whitespace_pattern: str | None = None) -> dict[str, Any]:
    """A checked schema with the options that its texts are written by.

    Args:
        whitespace_pattern: what may stand between JSON's parts; default: what Python's `json.dumps` writes.
            Free whitespace lets a model write blanks without end, and leaves little that is forced.
    """
    # No \u...: a name written so would not be known as one of the schema's.
    form: dict[str, Any] = {"json_allowed_escapes": '"\\bfnrt'}
    if whitespace_pattern is None:
        form |= {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    else:
        form |= {"whitespace_flexible": True, "whitespace_pattern": whitespace_pattern}
    return {**schema, "x-guidance": form}


class _Check:
    def __init__(self, schema: Any, name: str, place: str) -> None:
        self._root = schema
        self._name = name
        self._place = place
        self._num_properties = 0
        self._anchors: dict[str, Any] = {}
        self._refs: list[tuple[str, str]] = []  # path of the keyword, what it names

    def run(self) -> dict[str, Any]:
        if self._root is True:
            return {}
        try:
            text = json.dumps(self._root, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._refusal(f"it is not JSON: {error}") from None
        if len(text) > MAX_BYTES:
            raise self._refusal(f"it has {len(text)} bytes, and at most {MAX_BYTES} are allowed")
        self._root = json.loads(text)  # names are texts now, and nothing is in it twice
        if self._root is False:
            raise self._refusal("nothing satisfies the schema false")
        checked: dict[str, Any] = self._schema(self._root, "#", 1)
        for path, ref in self._refs:
            self._resolve(path, ref)
        self._check_circles()
        return checked

    def _refusal(self, why: str, path: str = "#") -> InvalidParamsError:
        return InvalidParamsError(
            f"{self._name} cannot be enforced: {self._place}{path[1:]}: {why}", param=self._name
        )

    def _schema(self, schema: Any, path: str, depth: int) -> Any:
        """Check one schema and those within; returns it without what asks for nothing."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise self._refusal("a schema must be an object or a boolean", path)
        if depth > MAX_DEPTH:
            raise self._refusal(f"schemas are nested more than {MAX_DEPTH} deep", path)
        self._check_min_properties(schema, path)
        checked = {}
        for keyword, value in schema.items():
            here = f"{path}/{escape_pointer(keyword)}"
            if type(value) in (bool, str) and value in NEUTRAL.get(keyword, ()):
                continue
            if keyword in REFUSED:
                raise self._refusal(
                    f"the keyword {keyword!r} is not supported; {REFUSED[keyword]}", here
                )
            checked[keyword] = self._keyword(keyword, value, here, depth)
        return checked

    def _keyword(self, keyword: str, value: Any, path: str, depth: int) -> Any:
        if keyword in SCHEMAS:
            if isinstance(value, list):
                raise self._refusal("a list of items is called prefixItems", path)
            return self._schema(value, path, depth + 1)
        if keyword in LISTS:
            self._must(isinstance(value, list) and value, "must be a list of schemas", path)
            return [self._schema(one, f"{path}/{i}", depth + 1) for i, one in enumerate(value)]
        if keyword in MAPS:
            self._must(isinstance(value, dict), "must map names to schemas", path)
            self._count_properties(keyword, value, path)
            self._check_writable(list(value), path)
            return {
                name: self._schema(one, f"{path}/{escape_pointer(name)}", depth + 1)
                for name, one in value.items()
            }
        self._check_value(keyword, value, path)
        return self._bound(keyword, value, path) if keyword in NUMBERS else value

    def _bound(self, keyword: str, value: float, path: str) -> float:
        """A bound that the compiler takes: where it is wider than that, the widest one."""
        if keyword in LEAST and value < -WIDEST:
            return -WIDEST
        if keyword in MOST and value > WIDEST:
            return WIDEST
        self._check_exact(value, path)
        return value

    def _check_exact(self, value: Any, path: str) -> None:
        """Whole numbers that doubles do not have would be others in the text."""
        beyond: list[str] = []

        def note(digits: str) -> int:
            if len(digits) > 17 or abs(int(digits)) > EXACT:
                beyond.append(digits)
            return 0

        json.loads(json.dumps(value), parse_int=note)
        self._must(
            not beyond,
            f"whole numbers beyond 2^53 are not supported; got {''.join(beyond[:1])[:100]}",
            path,
        )

    def _check_value(self, keyword: str, value: Any, path: str) -> None:
        if keyword == "type":
            names = value if isinstance(value, list) else [value]
            known = bool(names) and all(one in TYPES for one in names)
            self._must(known, f"must be of {', '.join(TYPES)}; got {value!r}", path)
        elif keyword == "enum":
            self._must(isinstance(value, list) and value, "must be a list of values", path)
            self._check_writable(value, path)
            self._check_exact(value, path)
        elif keyword == "const":
            self._check_writable(value, path)
            self._check_exact(value, path)
        elif keyword in COUNTS:
            whole = _is_number(value) and float(value).is_integer() and value >= 0
            self._must(whole, f"must be a whole number from 0; got {value!r}", path)
        elif keyword in NUMBERS:
            self._must(_is_number(value), f"must be a number; got {value!r}", path)
            self._must(keyword != "multipleOf" or value > 0, "must be above 0", path)
        elif keyword == "required":
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            self._must(texts, "must be a list of names", path)
            self._check_writable(value, path)
        elif keyword in TEXTS:
            self._must(isinstance(value, str), f"must be a text; got {value!r}", path)
            if keyword == "$ref":
                self._refs.append((path, value))

    def _check_min_properties(self, schema: dict[str, Any], path: str) -> None:
        """A name may stand twice in JSON: where names are free, their number says nothing."""
        least, required = schema.get("minProperties", 0), schema.get("required", ())
        free = "patternProperties" in schema or schema.get("additionalProperties") is not False
        if _is_number(least) and isinstance(required, list | tuple):
            self._must(
                not free or least <= len(set(required)),
                "it needs additionalProperties false and no patternProperties, or names in required",
                f"{path}/minProperties",
            )

    def _check_writable(self, value: Any, path: str) -> None:
        """Control characters are written as \\u...., which texts do not have here."""
        self._must(
            not UNWRITABLE.search(json.dumps(value, ensure_ascii=False)),
            "control characters other than \\b \\f \\n \\r \\t are not supported",
            path,
        )

    def _must(self, condition: object, what: str, path: str) -> None:
        if not condition:
            raise self._refusal(what, path)

    def _count_properties(self, keyword: str, value: dict[str, Any], path: str) -> None:
        if keyword in ("properties", "patternProperties"):
            self._num_properties += len(value)
            if self._num_properties > MAX_PROPERTIES:
                raise self._refusal(f"more than {MAX_PROPERTIES} properties in all", path)

    # ------------------------------------------------------------------ references

    def _resolve(self, path: str, ref: str) -> Any:
        """The schema that a reference names."""
        if not ref.startswith("#"):
            raise self._refusal(
                f"{ref!r} is another document, and none is fetched; put it under $defs and refer to "
                "#/$defs/...",
                path,
            )
        if ref not in ("#", "") and not ref.startswith("#/"):
            if not self._anchors:
                self._anchors = {
                    one["$anchor"]: one for one in _schemas(self._root) if "$anchor" in one
                }
            if ref[1:] not in self._anchors:
                raise self._refusal(f"nothing is called {ref!r}", path)
            return self._anchors[ref[1:]]
        target = self._root
        for part in ref.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isdigit() and int(name) < len(target):
                target = target[int(name)]
            else:
                raise self._refusal(f"{ref!r} refers to nothing", path)
        return target

    def _check_circles(self) -> None:
        """Refuse references that lead back to themselves without a value in between."""
        done: set[int] = set()
        for start in _schemas(self._root):
            self._follow(start, [], done)

    def _follow(self, schema: Any, trail: list[int], done: set[int]) -> None:
        if not isinstance(schema, dict) or id(schema) in done:
            return
        if len(trail) > MAX_CHAIN:
            raise self._refusal(f"more than {MAX_CHAIN} references refer to one another")
        if id(schema) in trail:
            raise self._refusal(
                f"{schema.get('$ref', '$ref')!r} refers in a circle: it says nothing of a value"
            )
        trail.append(id(schema))
        if isinstance(schema.get("$ref"), str):
            self._follow(self._resolve("#", schema["$ref"]), trail, done)
        for keyword in ("allOf", "anyOf", "oneOf"):
            for one in schema.get(keyword, ()):
                self._follow(one, trail, done)
        trail.pop()
        done.add(id(schema))


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all within it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in SCHEMAS:
        yield from _schemas(schema.get(keyword))
    for keyword in LISTS:
        for one in schema.get(keyword, ()):
            yield from _schemas(one)
    for keyword in MAPS:
        for one in schema.get(keyword, {}).values():
            yield from _schemas(one)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def escape_pointer(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
