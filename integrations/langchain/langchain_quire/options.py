"""What the four classes' constructors have in common: names, the environment, the connection.

An option of the engine may stand beside the class's own (`ChatVLLM(model=..., max_model_len=4096)`); it
is kept in `engine_kwargs`. A name that nobody knows is refused, with the nearest one that somebody does.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from langchain_core.runnables.config import RunnableConfig, ensure_config
from pydantic import SecretStr

from quire import EngineConfig, SamplingParams, bundled_model, connect
from quire.api.client import KEY_VARIABLE, URL_VARIABLE, Connection
from quire.errors import UnknownParamError, suggest

# Other classes' names for the same things.
_RENAMED = {
    "model_name": "model",
    "api_base": "base_url",
    "openai_api_base": "base_url",
    "openai_api_key": "api_key",
    "request_timeout": "timeout",
    "client": "engine",
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
}

_ENGINE_OPTIONS = frozenset(field.name for field in dataclasses.fields(EngineConfig))
_SAMPLING_OPTIONS = frozenset(field.name for field in dataclasses.fields(SamplingParams))


class Connected(Protocol):
    """The fields of which a connection is made."""

    model: Any
    base_url: str | None
    api_key: SecretStr | None
    engine: Any
    timeout: float | None
    max_retries: int
    default_headers: dict[str, str] | None


class Sessions(Protocol):
    """What `with_session` asks of a class."""

    session_id: str | None
    _connection: Connection


def sorted_options(cls: Any, values: Any) -> Any:
    """A `model_validator` of mode "before": every option under the name of a field.

    What the connection takes from the environment is written into the fields, where LangChain looks for it.

    Raises:
        UnknownParamError: a name that does not exist.
    """
    if not isinstance(values, Mapping):
        return values
    fields = cls.model_fields
    engine_field = "engine_kwargs" if "engine_kwargs" in fields else "vllm_kwargs"
    kept: dict[str, Any] = {}
    engine: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    for name, value in values.items():
        known = name if name in fields else _RENAMED.get(name, "")
        if known in fields:
            if known in kept:
                raise UnknownParamError(f"{name} is another name of {known}: give one", param=name)
            kept[known] = value
        elif name in _ENGINE_OPTIONS:
            engine[name] = value
        elif name in _SAMPLING_OPTIONS and "model_kwargs" in fields:
            sampling[name] = value
        else:
            everything = {*fields, *_RENAMED, *_ENGINE_OPTIONS}
            raise UnknownParamError(
                f"{cls.__name__} has no option {name!r}{suggest(name, everything)}", param=name
            )
    if engine:
        kept[engine_field] = {**(kept.get(engine_field) or {}), **engine}
    if sampling:
        kept["model_kwargs"] = {**(kept.get("model_kwargs") or {}), **sampling}
    local = kept.get("engine") is not None or kept.get(engine_field)
    if kept.get("base_url") is None and not local and (url := os.environ.get(URL_VARIABLE)):
        kept["base_url"] = url
    if kept.get("api_key") is None and (key := os.environ.get(KEY_VARIABLE)):
        kept["api_key"] = SecretStr(key)
    return kept


def connection_of(face: Connected, engine_options: Mapping[str, Any]) -> Connection:
    """The connection that a class's fields describe; it opens at its first use.

    Args:
        face: one of the four classes' objects.
        engine_options: fields of `EngineConfig`.

    Raises:
        ConfigError, UnknownParamError: options that do not go together, or do not exist.
    """
    return connect(
        face.model or None,
        base_url=face.base_url,
        api_key=None if face.api_key is None else face.api_key.get_secret_value(),
        engine=face.engine,
        timeout=face.timeout,
        max_retries=face.max_retries,
        default_headers=face.default_headers,
        **engine_options,
    )


def without_secrets(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """A pickle's state of a pydantic model, without key, engine and connection."""
    fields = {**state["__dict__"], "api_key": None, "engine": None}
    fields.pop("_serialized", None)  # langchain-core's copy of the fields
    return {**state, "__dict__": fields, "__pydantic_private__": None}


def restore(face: Any) -> None:
    """Give what came out of a pickle the key of the environment and a connection that was not used yet."""
    if key := os.environ.get(KEY_VARIABLE):
        face.api_key = SecretStr(key)
    face.model_post_init(None)


def name_of(face: Connected) -> str:
    """The model's name for people, without asking an endpoint or loading anything."""
    if face.model:
        return str(face.model)
    return bundled_model().name if face.base_url is None else "default"


def combined_outputs(outputs: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """`llm_output` of several calls: their usage added up."""
    total: dict[str, Any] = {}
    model = None
    for output in outputs:
        if output is not None:
            total = added(total, output.get("token_usage") or {})
            model = output.get("model_name") or model
    return {"token_usage": total, "model_name": model}


def with_session(
    face: Sessions, config: RunnableConfig | None, fields: dict[str, Any]
) -> dict[str, Any]:
    """Fields of a call, the `thread_id` of its config among them as `session_id`.

    A model that is called by itself is not told its config; within chains and graphs LangChain keeps it at
    hand, where `thread_of` finds it.
    """
    thread = ((config or {}).get("configurable") or {}).get("thread_id")
    if thread is None or not face._connection.is_local or face.session_id is not None:
        return fields
    return {"session_id": str(thread), **fields}


def thread_of(connection: Connection) -> str | None:
    """LangGraph's thread, as the `session_id` of requests.

    Only in process: an endpoint that is not quire's may refuse the field.
    """
    if not connection.is_local:
        return None
    thread = ensure_config().get("configurable", {}).get("thread_id")
    return None if thread is None else str(thread)


def added(total: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Two usages as one."""
    result = dict(total)
    for name, value in more.items():
        if isinstance(value, Mapping):
            result[name] = added(result.get(name) or {}, value)
        else:
            result[name] = (result.get(name) or 0) + value
    return result
