"""The bodies of /tokenize and /detokenize: vLLM's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from quire.api import limits
from quire.api.protocol.chat import Messages, TemplateFields
from quire.api.protocol.fields import Body, TokenIds, refuse
from quire.api.protocol.refusals import Refusal

ModelName = Annotated[str, Field(max_length=limits.MODEL_NAME_CHARACTERS)]


class TokenizeRequest(TemplateFields):
    """The token ids of a text (`prompt`) or of a conversation (`messages`)."""

    refused: ClassVar[Mapping[str, Refusal]] = {
        "mm_processor_kwargs": Refusal("this release runs text models only", ({},)),
    }

    model: ModelName | None = None
    prompt: Annotated[str, Field(max_length=limits.TOKENIZE_CHARACTERS)] | None = None
    messages: Messages | None = None  # type: ignore[assignment]
    add_special_tokens: bool | None = None
    """To a text; default: true. The template of a conversation writes them."""
    return_token_strs: bool | None = None
    """Also return each token's text."""

    @model_validator(mode="after")
    def _check_one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise refuse("or messages: give one of them", "prompt")
        if self.messages is not None and self.add_special_tokens:
            raise refuse("is for a prompt: a chat template writes them", "add_special_tokens")
        return self


class DetokenizeRequest(Body):
    """The text of token ids."""

    model: ModelName | None = None
    tokens: Annotated[TokenIds, Field(max_length=limits.TOKENIZE_CHARACTERS)]
