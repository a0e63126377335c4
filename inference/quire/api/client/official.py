"""Official openai clients whose transport is an engine: for whatever insists on those."""

from __future__ import annotations

import os
from typing import Any

import openai

from quire.api.client.client import LOCAL
from quire.api.client.host import Host
from quire.api.client.transport import AsyncEngineHttpClient, EngineHttpClient


def openai_client(model: Any = None, **engine_options: Any) -> openai.OpenAI:
    """An `openai.OpenAI` whose requests go to an engine in this process, with no socket.

    Chat completions, completions, responses, embeddings and models, as a server has them. The model is loaded
    at the first request. Closing the client lets go of it.

    Args:
        model: folder or hub name, or an `Engine`, `LLM` or `AsyncLLM`; default: the bundled model.
        engine_options: fields of `EngineConfig`; engines are shared as by `connect`.

    Raises:
        ConfigError, UnknownParamError: an option is wrong or does not exist.
    """
    return openai.OpenAI(http_client=EngineHttpClient(_host(model, engine_options)), **LOCAL)


def async_openai_client(model: Any = None, **engine_options: Any) -> openai.AsyncOpenAI:
    """The same as an `openai.AsyncOpenAI`."""
    return openai.AsyncOpenAI(
        http_client=AsyncEngineHttpClient(_host(model, engine_options)), **LOCAL
    )


def _host(model: Any, engine_options: dict[str, Any]) -> Host:
    if model is None or isinstance(model, (str, os.PathLike)):
        return Host(None if model is None else os.fspath(model), None, engine_options)
    return Host(None, model, engine_options)
