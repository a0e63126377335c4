"""Tools and structured output of `ChatVLLM`, in process and remote, beyond the standard suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel, Field

from langchain_quire import ChatVLLM
from langchain_quire.structured import _json_schema
from langchain_quire.tools import closed, tool_choice_of
from quire.errors import EndpointError, InvalidParamsError

Make = Callable[..., ChatVLLM]
ASKED = "The food was great."


class Review(BaseModel):
    """A review."""

    mood: Literal["good", "bad"]
    stars: Literal[1, 2, 3]


class Story(BaseModel):
    """A story."""

    text: str


def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return "sunny"


def set_mode(mode: Literal["on", "off"]) -> str:
    """Set the mode"""
    return "ok"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("strict", [None, True, False])
def test_objects(make: Make, method: Any, strict: bool | None) -> None:
    for schema in (Review, Review.model_json_schema()):
        chain = make().with_structured_output(schema, method=method, strict=strict)
        answer = chain.invoke(ASKED)
        Review.model_validate(answer if isinstance(answer, dict) else answer.model_dump())
        assert isinstance(answer, Review) is (schema is Review)
        *_, last = chain.stream(ASKED)
        assert last == answer


async def test_awaited_objects_with_the_message(make: Make) -> None:
    chain = make().with_structured_output(Review, include_raw=True)
    for answer in (await chain.ainvoke(ASKED), (await chain.abatch([ASKED]))[0]):
        assert isinstance(answer["parsed"], Review) and answer["parsing_error"] is None
        assert Review.model_validate_json(answer["raw"].text) == answer["parsed"]


def test_a_schema_needs_no_title(make: Make) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    for method in ("json_schema", "function_calling"):
        assert make().with_structured_output(schema, method=method).invoke("Well?")["ok"] in (0, 1)


def test_half_an_object_is_none(make: Make) -> None:
    chat = make(max_tokens=3)
    for method in ("json_schema", "function_calling"):
        with pytest.raises(OutputParserException, match="raise max_tokens"):
            chat.with_structured_output(Story, method=method).invoke("Tell me a story.")
        with pytest.raises(OutputParserException, match="raise max_tokens"):
            list(chat.with_structured_output(Story, method=method).stream("Tell me a story."))
    answer = chat.with_structured_output(Story, include_raw=True).invoke("Tell me a story.")
    assert answer["parsed"] is None
    assert isinstance(answer["parsing_error"], OutputParserException)


@pytest.mark.parametrize("include_raw", [False, True])
async def test_confidence(make: Make, include_raw: bool) -> None:
    chain = make().with_structured_output(Review, include_confidence=True, include_raw=include_raw)
    *_, streamed = chain.stream(ASKED)
    assert streamed.keys() <= {"raw", "parsed", "confidence", "parsing_error"}
    for answer in (chain.invoke(ASKED), await chain.ainvoke(ASKED)):
        assert ("raw" in answer) is include_raw
        assert answer["confidence"].keys() == {"/mood", "/stars"}
        stars = answer["confidence"]["/stars"]
        assert stars["value"] == answer["parsed"].stars
        shares = {one["value"]: one["probability"] for one in stars["distribution"]}
        assert shares.keys() == {1, 2, 3} and sum(shares.values()) == pytest.approx(1)


def test_confidence_that_nobody_reports(make: Make) -> None:
    chat = make()
    with pytest.raises(InvalidParamsError, match="json_schema or json_mode"):
        chat.with_structured_output(Review, method="function_calling", include_confidence=True)
    chain = chat.with_structured_output(Review, include_confidence=True)
    with pytest.raises(EndpointError, match="reports no confidence"):
        chain.invoke(ASKED, response_format=_json_schema(Review, None))


def test_arguments_that_do_not_go_together(make: Make) -> None:
    chat = make()
    for options, words in (
        ({"method": "json_shema"}, "did you mean 'json_schema'"),
        ({"method": "json_mode", "strict": True}, "json_mode sends none"),
    ):
        with pytest.raises(InvalidParamsError, match=words):
            chat.with_structured_output(Review, **options)
    with pytest.raises(InvalidParamsError, match="needs a schema"):
        chat.with_structured_output()


@pytest.mark.parametrize("choice", ["any", "required", True, "set_mode",
                                    {"type": "function", "function": {"name": "set_mode"}}])  # fmt: skip
def test_calls_that_must_be_made(make: Make, choice: Any) -> None:
    tools = [set_mode] if choice in ("any", "required", True) else [set_mode, get_weather]
    chat = make().bind_tools(tools, tool_choice=choice, parallel_tool_calls=False)
    [call] = chat.invoke("Tell me a story.").tool_calls  # type: ignore[attr-defined]
    assert call["name"] == "set_mode" and call["args"]["mode"] in ("on", "off")


def test_calls_that_may_or_must_not_be_made(make: Make) -> None:
    asked = "What is the weather in Paris?"
    for choice in (None, False, "auto"):
        [call] = make().bind_tools([get_weather], tool_choice=choice).invoke(asked).tool_calls  # type: ignore[attr-defined]
        assert call["args"] == {"city": "Paris"}
    assert make().bind_tools([get_weather], tool_choice="none").invoke(asked).tool_calls == []  # type: ignore[attr-defined]


def test_choices() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("add", "auto")]
    assert tool_choice_of("auto", tools) == tools[1], "a tool of that name goes first"
    assert tool_choice_of("any", tools) == "required"
    with pytest.raises(InvalidParamsError, match="did you mean 'add'"):
        tool_choice_of("ad", tools)
    with pytest.raises(InvalidParamsError, match="none of the tools"):
        tool_choice_of({"type": "function", "function": {"name": "x"}}, tools)


def test_calls_that_were_cut_off_are_no_calls(make: Make) -> None:
    chat = make(max_tokens=14).bind_tools([get_weather], tool_choice="any")
    message: Any = chat.invoke("What is the weather in Paris?")
    assert message.tool_calls == []
    [invalid] = message.invalid_tool_calls
    assert invalid["name"] == "get_weather" and "max_tokens" in invalid["error"]


def test_closed_schemas() -> None:
    def fields(**more: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"a": {"type": "string"}}, **more}

    shut = fields(additionalProperties=False)
    assert closed(fields()) == shut
    assert closed(fields(additionalProperties=True)) == fields(additionalProperties=True)
    assert closed({"type": "object"}) == {"type": "object"}, "any object stays any object"
    assert closed({"anyOf": [fields(), {"type": "null"}]}) == {"anyOf": [shut, {"type": "null"}]}
    assert closed({"type": "array", "items": fields()})["items"] == shut
    assert closed({"$defs": {"x": fields()}})["$defs"]["x"] == shut
    together = {"allOf": [fields(), fields()]}
    assert closed(together) == together, "each part would refuse the fields of the others"
    nested = {"type": "object", "properties": {"b": fields()}}
    assert closed(nested)["properties"]["b"] == shut


class Numbers(BaseModel):
    """Numbers."""

    one: int = Field(ge=1, le=9)
    other: int | None = None


def test_optional_fields(make: Make) -> None:
    answer = make().with_structured_output(Numbers).invoke("What is 1 plus 2?")
    assert isinstance(answer, Numbers) and 1 <= answer.one <= 9
