"""/openapi.json: what every path takes and answers, made from the models that check and clients' types.

It knows nothing of serving; `describe` is a function of the table of operations.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import quire
from quire.api.protocol.fields import Body
from quire.server.endpoints import Operation

UNGUARDED = ("/health",)
HEALTH_PATHS = ("/health", "/ping")

ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
HEALTH_SCHEMA = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}},
}

ERRORS = {
    "400": "The request cannot be served as it was made",
    "401": "No API key, or a wrong one",
    "404": "No such model, response or path",
    "408": "The body did not come in time",
    "413": "The body is too long",
    "415": "The body is not JSON",
    "429": "Too many requests wait; Retry-After says when to come again",
    "431": "The headers are too long",
    "500": "The model failed on this request",
    "503": "The server is stopping, or its engine has stopped",
}
BODY_ERRORS = ("408", "413", "415", "429", "500")


def describe(operations: Sequence[Operation], *, guarded: bool) -> dict[str, Any]:
    """The OpenAPI document of `operations`.

    Args:
        operations: every path.
        guarded: whether an API key is needed.
    """
    answers = {name: _load(name) for name in {one.answer for one in operations} if name}
    requests = {one.request for one in operations if one.request}
    models = sorted({*requests, *answers.values()}, key=lambda model: model.__qualname__)
    references, definitions = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    _allow_first_tokens(definitions["$defs"])
    schemas: dict[type[Body] | str, Any] = {
        **{model: references[model, "validation"] for model in requests},
        **{name: references[model, "validation"] for name, model in answers.items()},
    }
    components: dict[str, Any] = {"schemas": {"Error": ERROR_SCHEMA, **definitions["$defs"]}}
    if guarded:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    paths: dict[str, Any] = {}
    for operation in operations:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", operation.path)
        for method in operation.methods:
            described = _operation(operation, path, method, schemas)
            if guarded and path not in UNGUARDED:
                described["security"] = [{"key": []}]
            paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "quire", "version": quire.__version__},
        "paths": paths,
        "components": components,
    }


def _load(name: str) -> type[BaseModel]:
    module, _, attribute = name.partition(":")
    model: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    return model


def _allow_first_tokens(schemas: dict[str, Any]) -> None:
    """Let logprobs begin with null, as those of an echoed prompt do; the client's type does not say so."""
    for name in schemas["CompletionChoice"]["properties"]["logprobs"]["anyOf"]:
        properties = (
            schemas[name["$ref"].rpartition("/")[2]]["properties"] if "$ref" in name else {}
        )
        for field in ("token_logprobs", "top_logprobs"):
            for kind in properties.get(field, {}).get("anyOf", ()):
                if kind.get("type") == "array":
                    kind["items"] = {"anyOf": [kind["items"], {"type": "null"}]}


def _operation(
    operation: Operation, path: str, method: str, schemas: Mapping[type[Body] | str, Any]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{method.lower()}{re.sub(r'[^a-zA-Z0-9]+', '_', path)}".rstrip("_"),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", path)
        ],
        "responses": {"200": {"description": "The answer", "content": _answer(operation, schemas)}},
    }
    errors = ["400", "401", "404", "431", "503"]
    if operation.request is not None:
        errors += BODY_ERRORS
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[operation.request]}},
        }
    for status in sorted(errors):
        described["responses"][status] = {
            "description": ERRORS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    if operation.path in HEALTH_PATHS:
        described["responses"]["503"]["content"]["application/json"]["schema"] = HEALTH_SCHEMA
    return described


def _answer(operation: Operation, schemas: Mapping[type[Body] | str, Any]) -> dict[str, Any]:
    if operation.content_type != "application/json":
        return {operation.content_type: {"schema": {"type": "string"}}}
    schema = {"type": "object"} if operation.answer is None else schemas[operation.answer]
    content = {"application/json": {"schema": schema}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return content
