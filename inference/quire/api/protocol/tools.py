"""Tools in the bodies of requests: what may be called, whether it must be, and calls of earlier turns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from quire.api import limits
from quire.api.protocol.fields import Body, refuse_kind
from quire.api.protocol.refusals import TOOLS

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ToolMode = Literal["none", "auto", "required"]


class FunctionDefinition(Body):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments, an object; left out: none are taken."""
    strict: bool | None = None
    """Refuse a schema that cannot be enforced; arguments follow those that can in any case."""


class FunctionTool(Body):
    """A tool of chat completions."""

    type: Literal["function"]
    function: FunctionDefinition

    def for_template(self) -> dict[str, Any]:
        """The tool in plain types, as chat templates expect it."""
        return self.model_dump(exclude_none=True)


class NamedFunction(Body):
    """A function by its name."""

    name: ToolName


class NamedTool(Body):
    """The tool that must be called, in chat completions."""

    type: Literal["function"]
    function: NamedFunction


def _tool_kind(value: Any) -> Any:
    return refuse_kind(value, ("function",), TOOLS)


Tools = Annotated[
    list[Annotated[FunctionTool, BeforeValidator(_tool_kind)]],
    Field(max_length=limits.TOOLS, fail_fast=True),
]


class CalledFunction(Body):
    """A function that the assistant called in an earlier turn, its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Body):
    """A call of an earlier turn."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None
    """As pieces of our own streams have it."""


class ResponseTool(Body):
    """A tool of responses."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def for_template(self) -> dict[str, Any]:
        """The tool in the shape of chat completions, as chat templates expect it."""
        return {
            "type": "function",
            "function": self.model_dump(exclude_none=True, exclude={"type"}),
        }


class NamedResponseTool(Body):
    """The tool that must be called, in responses."""

    type: Literal["function"]
    name: ToolName


ResponseTools = Annotated[
    list[Annotated[ResponseTool, BeforeValidator(_tool_kind)]],
    Field(max_length=limits.TOOLS, fail_fast=True),
]
