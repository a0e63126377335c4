"""The form that an answer is to have: `response_format` of chat completions, `text.format` of responses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from quire.api.protocol.fields import Body, refuse
from quire.structured_outputs import StructuredOutputsParams


class NamedSchema(Body):
    """A JSON schema under a name."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    """Of no effect: a schema is followed, or refused."""


class ResponseFormat(Body):
    """Text, any JSON object, JSON under a schema, or text with tags that hold such JSON."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: NamedSchema | None = None
    structures: list[dict[str, Any]] | None = None
    triggers: list[str] | None = None
    confidence: bool | None = None
    """Report how sure the model was of each field, as `confidence` of the choice."""

    @model_validator(mode="after")
    def _check_parts(self) -> ResponseFormat:
        if self.confidence and self.type not in ("json_object", "json_schema"):
            raise refuse("goes with type 'json_schema' or 'json_object'", "confidence")
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise refuse("goes with type 'json_schema'", "json_schema")
        tagged = self.type == "structural_tag"
        if tagged != (self.structures is not None) or tagged != (self.triggers is not None):
            raise refuse("and triggers go with type 'structural_tag'", "structures")
        return self

    def structure(self) -> StructuredOutputsParams | None:
        """What it asks of the text; None: nothing.

        Raises:
            InvalidParamsError: what it asks for is wrong.
        """
        if self.json_schema is not None:
            return StructuredOutputsParams(
                json=self.json_schema.schema_, confidence=bool(self.confidence)
            )
        if self.type == "json_object":
            return StructuredOutputsParams(json_object=True, confidence=bool(self.confidence))
        if self.type == "structural_tag":
            tag = {"structures": self.structures, "triggers": self.triggers}
            return StructuredOutputsParams(structural_tag=tag)
        return None


class TextFormat(Body):
    """The same as responses have it, the schema beside its name."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> TextFormat:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise refuse("goes with type 'json_schema'", "schema")
        return self


class TextOptions(Body):
    """`text` of a response."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None
    """Say in a message how long the answer should be."""

    def structure(self) -> StructuredOutputsParams | None:
        """As `ResponseFormat.structure`."""
        if self.format is None or self.format.type == "text":
            return None
        if self.format.schema_ is not None:
            return StructuredOutputsParams(json=self.format.schema_)
        return StructuredOutputsParams(json_object=True)
