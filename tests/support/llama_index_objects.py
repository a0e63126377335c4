"""What LlamaIndex expects of structured prediction; part of `LLMContract`."""

from __future__ import annotations

from enum import Enum
from itertools import pairwise
from typing import Any, Literal

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.program.utils import get_program_for_llm
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, field_validator

from llama_index_chats import Make


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Kind(str, Enum):
    cat = "cat"
    dog = "dog"


class Animal(BaseModel):
    kind: Kind
    friendly: bool


class Toy(BaseModel):
    name: Literal["ball", "bone"]
    colour: str | None = Field(default=None, max_length=12)


class Pet(BaseModel):
    """A pet."""

    kind: Kind
    friendly: bool
    toys: list[Toy] = Field(max_length=2, min_length=1)


class Picky(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def refuse(cls, name: str) -> str:
        raise ValueError("nobody is good enough")


PROMPT = PromptTemplate("Fill a JSON object from this text: {text}")
KOFI = {"text": "Kofi is 31 years old."}


def check_partial(objects: list[Any]) -> None:
    """Each adds to what the ones before it said; the last is whole."""
    assert objects[-1] == Person(name="Kofi", age=31)
    assert all(isinstance(one, BaseModel) for one in objects)
    names = [one.name for one in objects if one.name is not None]
    assert all(later.startswith(earlier) for earlier, later in pairwise(names))


class ObjectContract:
    """Objects of pydantic classes, by grammar: whole, partial, nested, refused."""

    def test_structured_predict(self, make: Make) -> None:
        assert make().structured_predict(Person, PROMPT, **KOFI) == Person(name="Kofi", age=31)

    async def test_astructured_predict(self, make: Make) -> None:
        predicted = await make().astructured_predict(Person, PROMPT, **KOFI)
        assert predicted == Person(name="Kofi", age=31)

    def test_stream_structured_predict(self, make: Make) -> None:
        check_partial(list(make().stream_structured_predict(Person, PROMPT, **KOFI)))

    async def test_astream_structured_predict(self, make: Make) -> None:
        stream = await make().astream_structured_predict(Person, PROMPT, **KOFI)
        check_partial([one async for one in stream])

    def test_any_text_becomes_an_object_of_the_class(self, make: Make) -> None:
        llm = make(max_new_tokens=200, temperature=1.0)
        for seed in range(4):
            pet = llm.structured_predict(Pet, PROMPT, {"seed": seed}, text="Once upon a time")
            assert isinstance(pet, Pet)
            streamed = list(
                llm.stream_structured_predict(Pet, PROMPT, {"seed": seed}, text="Once upon a time")
            )
            assert streamed[-1] == pet

    def test_options_of_the_call(self, make: Make) -> None:
        predicted = make().structured_predict(Person, PROMPT, {"max_tokens": 40}, **KOFI)
        assert predicted.name == "Kofi"

    def test_a_system_prompt_and_a_chat_template(self, make: Make) -> None:
        prompt = ChatPromptTemplate([ChatMessage("Fill a JSON object from this text: {text}")])
        llm = make(system_prompt="You are a helpful assistant.")
        assert isinstance(llm.structured_predict(Person, prompt, **KOFI), Person)

    def test_a_cut_answer_is_an_error(self, make: Make) -> None:
        llm = make(max_new_tokens=4)
        with pytest.raises(ValueError, match="Person was complete: raise max_new_tokens"):
            llm.structured_predict(Person, PROMPT, **KOFI)
        with pytest.raises(ValueError, match="raise max_new_tokens"):
            list(llm.stream_structured_predict(Person, PROMPT, **KOFI))

    def test_a_validator_refuses(self, make: Make) -> None:
        with pytest.raises(ValueError, match="nobody is good enough"):
            make().structured_predict(Picky, PROMPT, **KOFI)

    def test_as_structured_llm(self, make: Make) -> None:
        llm = make().as_structured_llm(Person)
        response = llm.chat([ChatMessage(PROMPT.format(**KOFI))])
        assert response.raw == Person(name="Kofi", age=31)
        assert Person.model_validate_json(response.message.content) == response.raw
        assert llm.complete(PROMPT.format(**KOFI)).raw == response.raw

    @pytest.mark.filterwarnings("ignore:The `json` method is deprecated")
    async def test_as_structured_llm_awaited_and_streamed(self, make: Make) -> None:
        llm = make().as_structured_llm(Person)
        asked = [ChatMessage(PROMPT.format(**KOFI))]
        assert (await llm.achat(asked)).raw == Person(name="Kofi", age=31)
        assert (await llm.acomplete(PROMPT.format(**KOFI))).raw == Person(name="Kofi", age=31)
        check_partial([item.raw for item in llm.stream_chat(asked)])
        check_partial([item.raw async for item in await llm.astream_chat(asked)])

    async def test_by_a_tool(self, make: Make) -> None:
        llm = make(pydantic_program_mode=PydanticProgramMode.FUNCTION, max_new_tokens=100)
        program = get_program_for_llm(Person, PROMPT, llm)
        assert isinstance(program, FunctionCallingProgram)
        assert isinstance(program(**KOFI), Person)
        assert isinstance(llm.structured_predict(Person, PROMPT, **KOFI), Person)
        assert isinstance(await llm.astructured_predict(Person, PROMPT, **KOFI), Person)
        check_partial(list(llm.stream_structured_predict(Person, PROMPT, **KOFI)))
        stream = await llm.astream_structured_predict(Person, PROMPT, **KOFI)
        check_partial([one async for one in stream])

    async def test_by_an_output_parser(self, make: Make) -> None:
        llm = make(pydantic_program_mode=PydanticProgramMode.LLM, is_chat_model=False)
        with pytest.raises(
            ValueError, match="Could not extract json"
        ):  # nothing makes it write JSON
            llm.structured_predict(Person, PROMPT, text="", llm_kwargs={"max_tokens": 1})
        with pytest.raises(ValueError, match="Could not extract json"):
            await llm.astructured_predict(Person, PROMPT, text="", llm_kwargs={"max_tokens": 1})

    def test_an_answer_with_its_confidence(self, make: Make) -> None:
        llm = make(max_new_tokens=100)
        asked = [ChatMessage("Fill a JSON object from this text: a friendly cat")]
        shape: dict[str, Any] = {"response_format": Animal, "include_confidence": True}
        response = llm.chat(asked, **shape)
        animal = Animal.model_validate_json(response.message.content or "")
        confidence = response.additional_kwargs["confidence"]
        assert confidence.keys() == {"/kind", "/friendly"}
        likely = confidence["/kind"]["distribution"]
        assert abs(sum(one["probability"] for one in likely) - 1) < 1e-4
        assert confidence["/kind"]["value"] == animal.kind.value
        assert list(llm.stream_chat(asked, **shape))[-1].message.content == response.message.content
        with pytest.raises(ValueError, match="response_format"):
            llm.chat(asked, include_confidence=True)

    def test_a_model_that_completes(self, make: Make) -> None:
        llm = make(is_chat_model=False, max_new_tokens=100)
        assert isinstance(llm.structured_predict(Person, PROMPT, **KOFI), Person)
