"""Answers in the shape of a pydantic class: how they are asked for, and how they are read, also in part."""

from __future__ import annotations

import re
from typing import Any, Generic

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.types import Model
from openai.types import Completion
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json


def shape_fields(output_cls: type[BaseModel], *, chat: bool) -> dict[str, Any]:
    """Fields of a request whose answer follows the schema of `output_cls`, token for token.

    Args:
        chat: for a chat, in the form that all endpoints know; else for a completion, in vLLM's.
    """
    schema = output_cls.model_json_schema()
    if not chat:
        return {"structured_outputs": {"json": schema}}
    name = re.sub(r"[^A-Za-z0-9_-]", "_", output_cls.__name__)[:64]
    shape = {"name": name, "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": shape}}


def shape_answer(fields: dict[str, Any], *, chat: bool) -> None:
    """Put the shape that a call asks for into the endpoint's words.

    Args:
        fields: of the request; a class as `response_format` is replaced by its schema, and
            `include_confidence` by a field of the shape: the response has it in `additional_kwargs`.

    Raises:
        ValueError: `include_confidence` without a shape.
    """
    output_cls = fields.get("response_format")
    if isinstance(output_cls, type):
        del fields["response_format"]
        fields |= shape_fields(output_cls, chat=chat)
    if fields.pop("include_confidence", False):
        for name in ("response_format", "structured_outputs"):
            if name in fields:
                fields[name] = {**fields[name], "confidence": True}
                return
        raise ValueError("include_confidence is of the fields of an object: give a response_format")


def whole_object(output_cls: type[Model], response: ChatResponse) -> Model:
    """The object that a finished answer describes.

    Raises:
        ValueError: the answer was cut, or a validator of the class refuses it (`ValidationError`).
    """
    if isinstance(response.raw, (ChatCompletion, Completion)):
        _refuse_cut(output_cls, response.raw.choices[0].finish_reason)
    return output_cls.model_validate_json(response.message.content or "")


class PartialObjects(Generic[Model]):
    """Reads an object from an answer that still streams.

    Args:
        output_cls: the class. What does not satisfy it yet is given as a model of the same fields, all
            optional and of any type.
    """

    def __init__(self, output_cls: type[Model]) -> None:
        self._output_cls = output_cls
        self._flexible = create_flexible_model(output_cls)

    def read(self, response: ChatResponse) -> Model | FlexibleModel:
        """The object so far.

        Raises:
            ValueError: the answer ends here and was cut.
        """
        for choice in getattr(response.raw, "choices", ()):
            if not choice.index:
                _refuse_cut(self._output_cls, choice.finish_reason)
        try:
            said = from_json(response.message.content or "", allow_partial="trailing-strings")
        except ValueError:  # not even a brace
            return self._flexible()
        try:
            return self._output_cls.model_validate(said)
        except ValidationError:
            return self._flexible.model_validate(said if isinstance(said, dict) else {})


def _refuse_cut(output_cls: type[BaseModel], finish_reason: str | None) -> None:
    if finish_reason == "length":
        raise ValueError(
            f"the answer was cut before its {output_cls.__name__} was complete: raise max_new_tokens, or "
            "shorten the prompt if the context is full"
        )
