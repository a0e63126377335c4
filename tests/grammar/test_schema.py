"""Schemas that cannot be enforced are refused before anything is compiled, by keyword and path."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

import grammar_walks as walks
from quire.errors import InvalidParamsError
from quire.grammar import check_schema

DEEP: dict[str, Any] = {"type": "string"}
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"properties": {"a/b": {"not": {}}}}, r"#/properties/a~1b/not: the keyword 'not'"),
        ({"items": {"uniqueItems": True}}, "#/items/uniqueItems"),
        ({"anyOf": [{}, {"if": {}}]}, "#/anyOf/1/if"),
        ({"x-guidance": {"lenient": True}}, "x-guidance"),
        ({"$ref": "#"}, "circle"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#"}}}, "circle"),
        ({"anyOf": [{"$ref": "#"}, {"type": "string"}]}, "circle"),
        ({"$ref": "https://example.com/schema"}, "#/\\$ref: .*another document"),
        ({"$ref": "#/$defs/none"}, "refers to nothing"),
        ({"$ref": "#nowhere"}, "nothing is called"),
        ({"type": "text"}, "#/type: must be of null, boolean"),
        ({"properties": {"a": {"minLength": "x"}}}, "#/properties/a/minLength"),
        ({"minItems": -1}, "#/minItems"),
        ({"minimum": "1"}, "#/minimum"),
        ({"exclusiveMinimum": True}, "#/exclusiveMinimum"),
        ({"multipleOf": 0}, "#/multipleOf"),
        ({"enum": []}, "#/enum"),
        ({"anyOf": []}, "#/anyOf"),
        ({"items": [{}]}, "prefixItems"),
        ({"properties": []}, "#/properties"),
        ({"required": "a"}, "#/required"),
        ({"minProperties": 2}, "#/minProperties"),
        ({"const": "\0"}, "#/const"),
        (DEEP, "more than 32 deep"),
        ({"properties": {f"p{i}": {} for i in range(1001)}}, "more than 1000 properties"),
        ({"enum": ["x" * 300_000]}, "bytes"),
        (False, "nothing satisfies"),
        ({"const": float("nan")}, "not JSON"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "cannot be enforced"),
        ({"type": "string", "pattern": "(?=a)"}, "cannot be enforced"),
        ({"type": "string", "format": "phone"}, "cannot be enforced"),
    ],
)
def test_refused(schema: Any, says: str) -> None:
    with pytest.raises(InvalidParamsError, match=says) as caught:
        walks.grammar(json=schema)
    assert caught.value.param == "structured_outputs.json"


def test_the_callers_schema_is_not_changed() -> None:
    schema = {"type": "array", "uniqueItems": False}
    check_schema(schema)
    walks.grammar(json=schema)
    assert schema == {"type": "array", "uniqueItems": False}


class Cat(BaseModel):
    kind: str
    lives: int = 9


class Home(BaseModel):
    cats: list[Cat]
    owner: str | None = None


def test_a_pydantic_class_is_its_schema() -> None:
    compiled = walks.grammar(json=Home)
    assert walks.accepts(compiled, '{"cats": [{"kind": "tabby", "lives": 3}], "owner": null}')
    assert not walks.accepts(compiled, '{"cats": [{"lives": 3}]}')


# What the suite does not try: names and values that get past a schema by the way they are written.
SNEAKY: list[tuple[dict[str, Any], str]] = [
    ({"properties": {"a": {"type": "integer"}}}, '{"\\u0061": "x"}'),
    ({"properties": {"a": {"type": "integer"}}}, '{"a": 1, "a": "x"}'),
    ({"patternProperties": {"^x": {"type": "null"}}}, '{"\\u0078": 1}'),
    ({"properties": {"a\n": {"type": "integer"}}}, '{"a\\n": "x"}'),
    ({"type": "string", "maxLength": 1}, '"\\ud83d\\udc32ab"'),
    ({"type": "string", "pattern": "^a$"}, '"a\\n"'),
    ({"type": "integer"}, "1e3"),
    ({"type": "integer", "maximum": 10}, "11.0"),
    ({"type": "number", "maximum": 1}, "1.0000001"),
    ({"type": "integer"}, "01"),
    ({"enum": ["a", 1]}, '"1"'),
    ({"enum": [True]}, "1"),
    ({"type": "boolean"}, '"true"'),
]


@pytest.mark.parametrize(("schema", "text"), SNEAKY)
def test_no_way_around(schema: dict[str, Any], text: str) -> None:
    if walks.accepts(walks.grammar(json=schema), text):
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def test_free_whitespace_is_free_within_its_pattern() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    fixed = walks.grammar(json=schema)
    free = walks.grammar(json=schema, whitespace_pattern=r"[ \n]{0,2}")
    assert walks.accepts(fixed, "[1, 2]") and not walks.accepts(fixed, "[1,2]")
    assert walks.accepts(free, "[1,2]") and walks.accepts(free, "[ 1 ,\n2]")
    assert not walks.accepts(free, "[    1]")
