"""The scanner of fields, and the values that a schema leaves them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.engine.field_values import possible_values
from quire.engine.fields import Field, FieldScanner

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def paths(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every value within, those inside first."""
    found = []
    if isinstance(value, dict):
        for name, one in value.items():
            found += paths(one, f"{path}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            found += paths(one, f"{path}/{index}")
    return [*found, (path, value)]


@given(value=JSON, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]), data=st.data())
def test_fields_of_a_text_cut_anywhere(
    value: Any, ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    scanner = FieldScanner()
    found: list[Field] = []
    place = 0
    while place < len(text):
        size = data.draw(st.integers(1, 5))
        found += scanner.feed(text[place : place + size])
        place += size
        for _, start in scanner.open_values():
            assert all(one.end <= start or one.start > start for one in found)
    found += scanner.finish()
    assert scanner.text == text
    assert [(one.path, one.value) for one in found] == paths(value)
    for one in found:
        assert json.loads(text[one.start : one.end]) == one.value
        assert one.is_leaf == (not isinstance(one.value, dict | list))


@given(st.binary(max_size=30))
def test_what_is_no_json_has_no_fields_but_does_no_harm(text: bytes) -> None:
    scanner = FieldScanner()
    scanner.feed(text)
    scanner.finish()
    assert scanner.text == text


@pytest.mark.parametrize(
    "text", [b'{"a":1,}', b"[1,]", b"{,}", b'{"a" 1}', b"]", b'{"a":1]', b"1 2"]
)
def test_what_breaks_off_is_no_whole(text: bytes) -> None:
    scanner = FieldScanner()
    assert all(one.path != "" or text == b"1 2" for one in [*scanner.feed(text), *scanner.finish()])


def test_a_value_is_open_from_its_first_byte_on() -> None:
    scanner = FieldScanner()
    scanner.feed(b'{"a": ')
    assert scanner.open_values() == [("", 0)]
    scanner.feed(b'{"b": "x')
    assert scanner.open_values() == [("", 0), ("/a", 6), ("/a/b", 12)]


COLOUR = {"enum": ["red", "blue"]}


@pytest.mark.parametrize(
    ("schema", "path", "values"),
    [
        ({"type": "boolean"}, "", [False, True]),
        ({"const": 3}, "", [3]),
        ({"type": "string"}, "", None),
        ({"properties": {"a/b": COLOUR}}, "/a~1b", ["red", "blue"]),
        ({"properties": {"a": {"anyOf": [COLOUR, {"type": "null"}]}}}, "/a", ["red", "blue", None]),
        ({"properties": {"a": {"anyOf": [COLOUR, {"type": "integer"}]}}}, "/a", None),
        ({"properties": {"a": {"allOf": [COLOUR, {"enum": ["blue", 1]}]}}}, "/a", ["blue"]),
        ({"type": "array", "items": COLOUR, "prefixItems": [{"const": 1}]}, "/0", [1]),
        ({"type": "array", "items": COLOUR, "prefixItems": [{"const": 1}]}, "/7", ["red", "blue"]),
        ({"additionalProperties": COLOUR}, "/any", ["red", "blue"]),
        ({"patternProperties": {"^x": COLOUR}, "additionalProperties": True}, "/xy", ["red", "blue"]),
        ({"patternProperties": {"^x": COLOUR}, "additionalProperties": True}, "/y", None),
        ({"$defs": {"c": COLOUR}, "properties": {"a": {"$ref": "#/$defs/c"}}}, "/a", ["red", "blue"]),
        (
            {"anyOf": [{"type": "object", "properties": {"kind": {"const": kind}},
                        "additionalProperties": False} for kind in ("a", "b")] + [{"type": "null"}]},
            "/kind", ["a", "b"],
        ),
        ({"$defs": {"t": {"anyOf": [{"type": "object", "properties":
            {"k": {"$ref": "#/$defs/t"}, "c": COLOUR}}, {"type": "boolean"}]}}, "$ref": "#/$defs/t"},
            "/k/k/c", ["red", "blue"]),
        ({"enum": [{"a": 1}, {"a": 2}, 3]}, "/a", [1, 2]),
        ({"enum": list(range(65))}, "", None),
        ({"enum": list(range(64))}, "", list(range(64))),
        ({"enum": [1, True, 1.0, "1"]}, "", [1, True, 1.0, "1"]),
    ],
)  # fmt: skip
def test_values_of_a_field(schema: Any, path: str, values: list[Any] | None) -> None:
    assert possible_values(schema, path) == values
