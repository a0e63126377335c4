"""Answers of a given shape: a schema held by the grammar, a tool's arguments, or any JSON."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    BaseOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
)
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableMap,
    RunnablePassthrough,
)
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass

from langchain_quire.tools import closed, tool_definition
from quire.errors import EndpointError, InvalidParamsError, suggest

if TYPE_CHECKING:
    from langchain_quire.chat_models import ChatVLLM

Method = Literal["json_schema", "function_calling", "json_mode"]
_METHODS = ("json_schema", "function_calling", "json_mode")


def structured_output(
    chat: ChatVLLM,
    schema: dict[str, Any] | type | None,
    *,
    method: Method = "json_schema",
    include_raw: bool = False,
    include_confidence: bool = False,
    strict: bool | None = None,
    **kwargs: Any,
) -> Runnable[LanguageModelInput, Any]:
    """A model whose answers are objects.

    Args:
        chat: the model.
        schema: a pydantic class (answers are its instances), TypedDict, JSON schema or OpenAI tool (answers
            are dicts). Objects hold the fields it lists and no others, unless it says otherwise.
        method: "json_schema": the grammar lets the model write nothing else; "function_calling": the same
            by a call of a tool that must be called; "json_mode": some JSON object, whose fields the prompt
            has to ask for.
        include_raw: answers are {"raw": message, "parsed": object or None, "parsing_error": error or None}.
        include_confidence: answers are {"parsed": object, "confidence": ...}, or with `include_raw` have
            that key too: for each field, by its JSON pointer, how sure the model was (`FieldConfidence`, as
            a dict). Served by quire, in process and remote.
        strict: True: all fields are required, and a schema that cannot be enforced is refused; False:
            objects may hold fields that the schema does not list.
        kwargs: further fields of the request.

    Raises:
        InvalidParamsError: an unknown method, or no schema where one is needed.
        OutputParserException: (the result's calls) the answer was cut off, or does not fit the schema.
        EndpointError: (the result's calls) an endpoint that does not report confidence.
    """
    if method not in _METHODS:
        raise InvalidParamsError(
            f"method must be one of {', '.join(_METHODS)}, got {method!r}{suggest(str(method), _METHODS)}",
            param="method",
        )
    if schema is None and method != "json_mode":
        raise InvalidParamsError(f"method {method!r} needs a schema", param="schema")
    if method == "json_mode" and strict is not None:
        raise InvalidParamsError("strict goes with a schema; json_mode sends none", param="strict")
    if method == "function_calling" and include_confidence:
        raise InvalidParamsError(
            "include_confidence goes with method json_schema or json_mode",
            param="include_confidence",
        )
    if isinstance(schema, dict) and not {"title", "name", "function"} & schema.keys():
        schema = {"title": "answer", **schema}  # LangChain takes a schema without a name for none
    seen = {"kwargs": {"method": method, "strict": strict}, "schema": schema or {}}
    model: Runnable[LanguageModelInput, AIMessage]
    parser: BaseOutputParser[Any]
    if method == "function_calling":
        assert schema is not None
        name = tool_definition(schema, strict)["function"]["name"]
        model = chat.bind_tools(
            [schema],
            tool_choice=name,
            strict=strict,
            parallel_tool_calls=False,
            ls_structured_output_format=seen,
            **kwargs,
        )
        if _is_pydantic(schema):
            parser = PydanticToolsParser(tools=[schema], first_tool_only=True)  # type: ignore[list-item]
        else:
            parser = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    else:
        form: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            form = _json_schema(schema, strict)
        if include_confidence:
            form["confidence"] = True
        model = chat.bind(response_format=form, ls_structured_output_format=seen, **kwargs)
        pydantic: Any = schema if _is_pydantic(schema) else None
        parser = PydanticOutputParser(pydantic_object=pydantic) if pydantic else JsonOutputParser()
    whole: Runnable[AIMessage, Any] = RunnableGenerator(_uncut, _auncut) | parser
    if include_raw:
        answer = _with_raw(model, whole)
        if include_confidence:
            answer |= RunnablePassthrough.assign(confidence=itemgetter("raw") | _CONFIDENCE)
        return answer
    return model | (
        RunnableMap(parsed=whole, confidence=_CONFIDENCE) if include_confidence else whole
    )


def _uncut(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    """Parsers take the half of an object for an object; this one refuses to be half."""
    for message in messages:
        yield _checked(message)


async def _auncut(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        yield _checked(message)


def _checked(message: AIMessage) -> AIMessage:
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException(
            "the answer was cut off before its object was complete: raise max_tokens, or bound the "
            "schema's strings and arrays (maxLength, maxItems)",
            llm_output=message.text,
        )
    return message


def _confidence(message: AIMessage) -> Any:
    metadata = message.response_metadata
    if "confidence" not in metadata and metadata.get("finish_reason") != "length":
        raise EndpointError(
            "the endpoint reports no confidence: use quire's, or leave include_confidence out"
        )
    return metadata.get("confidence")


_CONFIDENCE = RunnableLambda(_confidence)


def _is_pydantic(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _json_schema(schema: Any, strict: bool | None) -> dict[str, Any]:
    """`response_format` for a schema, under a name that every endpoint takes."""
    plain = convert_to_json_schema(schema, strict=strict)
    named: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_-]", "_", str(plain.get("title") or "answer"))[:64],
        "schema": plain if strict is False else closed(plain),
    }
    if description := plain.get("description"):
        named["description"] = description
    if strict is not None:
        named["strict"] = strict
    return {"type": "json_schema", "json_schema": named}


def _with_raw(
    model: Runnable[LanguageModelInput, AIMessage], parser: Runnable[AIMessage, Any]
) -> Runnable[LanguageModelInput, Any]:
    parsed: Runnable[Any, Any] = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed: Runnable[Any, Any] = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")
