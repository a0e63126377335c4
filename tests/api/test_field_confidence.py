"""`confidence` on the endpoint: whole answers, streams, completions, responses; what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import quire
from quire import Connection, Engine

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "age": {"enum": list(range(99))}},
    "required": ["colour", "age"],
    "additionalProperties": False,
}
ASK: Any = [{"role": "user", "content": "Who?"}]
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "person", "schema": SCHEMA},
    "confidence": True,
}
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 60}


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with Engine() as engine, quire.connect(engine=engine) as one:
        yield one


def check(confidence: Any, text: str) -> None:
    assert set(confidence) == {"/colour", "/age"}
    colour, age = confidence["/colour"], confidence["/age"]
    assert colour["value"] == json.loads(text)["colour"]
    assert {one["value"] for one in colour["distribution"]} == {"red", "blue"}
    assert sum(one["probability"] for one in colour["distribution"]) == pytest.approx(1)
    assert colour["mass"] == pytest.approx(1) and colour["num_tokens"] >= 1
    assert age["distribution"] is None and age["logprob"] <= 0


def test_chat_completions(connection: Connection) -> None:
    create = connection.sync.chat.completions.create
    whole = create(model=connection.model, messages=ASK, response_format=FORMAT, **OPTIONS)
    [choice] = whole.choices
    confidence = choice.confidence
    check(confidence, choice.message.content or "")
    body = {"structured_outputs": {"json": SCHEMA, "confidence": True}}
    chunks = list(
        create(model=connection.model, messages=ASK, stream=True, extra_body=body, **OPTIONS)
    )
    ends = [one for chunk in chunks for one in chunk.choices if one.finish_reason]
    assert [one.confidence for one in ends] == [confidence]
    assert sum(hasattr(one, "confidence") for chunk in chunks for one in chunk.choices) == 1
    body["structured_outputs"]["confidence"] = False
    without = create(model=connection.model, messages=ASK, extra_body=body, **OPTIONS)
    assert not hasattr(without.choices[0], "confidence")
    assert without.choices[0].message == choice.message and without.usage is not None
    assert whole.usage is not None
    assert without.usage.completion_tokens == whole.usage.completion_tokens


def test_completions_and_responses(connection: Connection) -> None:
    asked = {"structured_outputs": {"json": SCHEMA, "confidence": True}}
    made = connection.sync.completions.create(
        model=connection.model, prompt=["A:", "B:"], extra_body=asked, **OPTIONS
    )
    for choice in made.choices:
        check(choice.confidence, choice.text)
    response = connection.sync.responses.create(
        model=connection.model, input="Who?", temperature=0, max_output_tokens=60, extra_body=asked
    )
    check(response.confidence, response.output_text)


@pytest.mark.parametrize(
    ("structure", "why"),
    [
        ({"json": SCHEMA, "validators": {"/age": 1}}, "run in process only"),
        ({"json": SCHEMA, "max_retries": 1}, "run in process only"),
        ({"json": SCHEMA, "confidence": 1}, "must be True or False"),
        ({"regex": "a", "confidence": True}, "goes with json"),
    ],
)
def test_what_is_refused(connection: Connection, structure: dict[str, Any], why: str) -> None:
    with pytest.raises(openai.BadRequestError, match=why):
        connection.sync.completions.create(
            model=connection.model, prompt="A:", extra_body={"structured_outputs": structure}
        )


def test_texts_have_no_fields(connection: Connection) -> None:
    with pytest.raises(openai.BadRequestError, match="goes with type"):
        connection.sync.chat.completions.create(
            model=connection.model,
            messages=ASK,
            response_format={"type": "text", "confidence": True},  # type: ignore[typeddict-unknown-key]
        )
