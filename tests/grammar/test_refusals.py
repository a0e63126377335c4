"""What is refused says where and why, in words that a caller can use; what need not be refused is not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

import grammar_walks as walks
from quire.errors import InvalidParamsError
from quire.grammar import CompiledGrammar, compile_grammar
from quire.structured_outputs import StructuredOutputsParams


def compiled(**given: Any) -> CompiledGrammar:
    return compile_grammar(StructuredOutputsParams(**given), walks.vocabulary())


def refused(**given: Any) -> InvalidParamsError:
    with pytest.raises(InvalidParamsError) as caught:
        compiled(**given)
    return caught.value


NESTED: dict[str, Any] = {"$defs": {"a/b": {"type": "string", "pattern": "(?=a)"}}}
PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "#/properties/a/items": ({"properties": {"a": {"items": {"format": "nonsense", "type": "string"}}}},
                             "known are date-time"),
    "#/$defs/a~1b": (NESTED | {"properties": {"b": {"$ref": "#/$defs/a~1b"}}}, "look-around"),
    "#/properties/x": ({"properties": {"x": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}},
                       "write anyOf"),
    "#/properties/x/const": ({"properties": {"x": {"const": 2**53 + 1}}}, "beyond 2^53"),
    "#/enum": ({"enum": ["a", [{"b": -(2**70)}]]}, "beyond 2^53"),
    "#/minimum": ({"type": "integer", "minimum": 2**53 + 1}, "beyond 2^53"),
    "#/maximum": ({"type": "integer", "minimum": -(2**70), "maximum": -(2**69)}, "beyond 2^53"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_place_in_a_schema_is_named(place: str) -> None:
    schema, words = PLACES[place]
    error = refused(json=schema)
    assert f"enforced: {place}: " in str(error) and words in str(error)
    assert error.param == "structured_outputs.json"


def test_the_place_in_a_structural_tag_is_named_once() -> None:
    form = {"type": "tag", "begin": "<a>", "end": "</a>",
            "content": {"type": "json_schema", "json_schema": {"not": {}}}}  # fmt: skip
    error = refused(structural_tag={"type": "structural_tag", "format": form})
    assert str(error).count("structured_outputs.structural_tag") == 1
    assert "#/format/content/json_schema/not: " in str(error)
    assert error.param == "structured_outputs.structural_tag"


def test_whitespace_that_cannot_be_is_told_from_the_schema() -> None:
    for pattern in ("x", r"\s*", "[^a]", ".", r"[ \n]*|a", "[ ,]", " *5", "[ -z]"):
        with pytest.raises(InvalidParamsError, match="what JSON allows between its parts") as found:
            StructuredOutputsParams(json={"type": "array"}, whitespace_pattern=pattern)
        assert found.value.param == "structured_outputs.whitespace_pattern"
    error = refused(json={"type": "array"}, whitespace_pattern="(")
    assert error.param == "structured_outputs.whitespace_pattern"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"regex": "(?=a)a"}, "look-around"),
        ({"regex": "[a&&b]"}, "no text that satisfies"),
        ({"choice": ["\ud800"]}, "half of a surrogate pair"),
        ({"grammar": 'start: "a" start'}, "requires itself"),
        ({"grammar": 'rule: "a"'}, "no start rule"),
    ],
)
def test_the_librarys_words_are_replaced(given: dict[str, Any], words: str) -> None:
    said = str(refused(**given))
    assert words in said and "start: /" not in said


def test_schemas_without_an_end_are_refused_as_such() -> None:
    endless = {"type": "object", "properties": {"c": {"$ref": "#"}}, "required": ["c"],
               "additionalProperties": False}  # fmt: skip
    assert "requires itself" in str(refused(json=endless))


@pytest.mark.parametrize("bound", [2**63, 2**64, 10**30])
def test_bounds_wider_than_any_that_the_library_takes(bound: int) -> None:
    grammar = compiled(json={"type": "integer", "minimum": -bound, "maximum": bound - 1})
    matcher = grammar.matcher()
    tokens = walks.vocabulary().load().tokenize_str("-1234567890123456789")
    assert all(matcher.accept(one) for one in tokens) and matcher.is_complete


def test_formats_that_ask_for_nothing() -> None:
    class Login(BaseModel):
        password: SecretStr

    compiled(json=Login)
    compiled(json={"type": "string", "format": "binary"})


def test_a_pydantic_model_has_no_other_fields_unless_it_allows_them() -> None:
    class Inner(BaseModel):
        a: int

    class Outer(BaseModel):
        model_config = ConfigDict(extra="allow")
        inner: Inner

    schema = StructuredOutputsParams(json=Outer).json
    assert schema["additionalProperties"] is True
    assert schema["$defs"]["Inner"]["additionalProperties"] is False


def test_choices_may_be_as_many_as_an_enums_values() -> None:
    choices = [f"value {i}" for i in range(10_000)]
    assert not compiled(choice=choices).matcher().error


def test_lark_with_marks_before_its_rules() -> None:
    grammar = compiled(grammar='?start: sum\n?sum: NUMBER | sum "+" NUMBER\nNUMBER: /[0-9]/')
    matcher = grammar.matcher()
    tokens = walks.vocabulary().load().tokenize_str("1+2")
    assert all(matcher.accept(one) for one in tokens) and matcher.is_complete


@pytest.mark.parametrize("text", ["start: {}", 'start: "a" {} "b"'])
def test_a_grammar_that_names_the_end_itself_ends_there(text: str) -> None:
    vocabulary = walks.vocabulary()
    end = vocabulary.eos_token_ids[0]
    matcher = compiled(grammar=text.format(f"<[{end}]>")).matcher()
    forced = matcher.forced_tokens()
    assert end in forced
    for token_id in forced[: forced.index(end) + 1]:
        assert matcher.accept(token_id)
    assert matcher.is_finished and matcher.forced_tokens() == []
    assert not matcher.error
