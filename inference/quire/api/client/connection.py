"""`connect`: one object for a model in this process and for a model behind an endpoint.

What adapters stand on. Which of the two it is shows in `is_local` and nowhere else: both have openai's
clients, typed objects and errors.
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from quire.api.client.client import AsyncClient, Client
from quire.api.client.further import FurtherCall, rerank_call, score_call, tokenize_call
from quire.api.client.host import Host
from quire.api.client.loops import LoopClients
from quire.api.client.transport import AsyncEngineHttpClient, EngineHttpClient
from quire.config import EngineConfig
from quire.errors import ConfigError, EndpointError, RequestError, UnknownParamError, suggest
from quire.outputs import RankedDocument

MAX_RETRIES = 2  # openai's
URL_VARIABLE = "QUIRE_BASE_URL"
KEY_VARIABLE = "QUIRE_API_KEY"

T = TypeVar("T")

_A_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


class Connection:
    """A model, in this process or behind an endpoint, as openai's clients.

    Lazy: nothing is loaded and no socket opened before first use, or `load`. Safe to use from many threads
    and event loops. Connections to the same model with the same options share one engine, with each other
    and with `LLM` and `AsyncLLM`. A copy, or what comes out of a pickle, is a connection of the same
    configuration that was not used yet.

    Args:
        model: folder or hub name, or the name that the endpoint serves; default: the bundled model, or the
            first one that the endpoint lists.
        base_url: of an OpenAI-compatible endpoint, such as "http://gpu-box:8000/v1", where /v1 may be left
            out; default: QUIRE_BASE_URL unless an engine or options of one are given, and in process if
            that is not set.
        api_key: of the endpoint; default: QUIRE_API_KEY, then OPENAI_API_KEY, and none if neither is set.
        engine: an `Engine`, `LLM` or `AsyncLLM` to use in this process; whoever made it closes it.
        timeout: seconds to wait for an answer, or for the next piece of a stream; default: for ever in
            process, openai's 600 s for an endpoint.
        max_retries: of a request to an endpoint; in process nothing can fail for a moment.
        default_headers: of every request.
        engine_options: fields of `EngineConfig`, in process.

    Raises:
        ConfigError, UnknownParamError: these do not go together, or an option is wrong or unknown.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        engine: Any = None,
        timeout: float | None = None,
        max_retries: int = MAX_RETRIES,
        default_headers: Mapping[str, str] | None = None,
        **engine_options: Any,
    ) -> None:
        if base_url is None and engine is None and not engine_options:
            base_url = os.environ.get(URL_VARIABLE) or None
        self._settings: dict[str, Any] = {
            "model": None if model is None else os.fspath(model),
            "base_url": base_url and _with_path(base_url),
            "api_key": api_key,
            "engine": engine,
            "timeout": timeout,
            "max_retries": max_retries,
            "default_headers": default_headers,
            **engine_options,
        }
        _check_names(engine_options, set(self._settings) - set(engine_options))
        self._model: str | None = self._settings["model"]
        self._lock = threading.Lock()
        self._sync: openai.OpenAI | None = None
        self._asynchronous: openai.AsyncOpenAI | None = None  # in process
        self._of_loops = LoopClients(lambda: openai.AsyncOpenAI(**self._remote_options()))
        self._card: Mapping[str, Any] | None = None  # what an endpoint says of its model
        self._host: Host | None = None
        if base_url is None:
            self._host = Host(self._model, engine, engine_options)
        else:
            _check_remote(base_url, engine, engine_options)

    @property
    def is_local(self) -> bool:
        """Whether the model is in this process."""
        return self._host is not None

    # ------------------------------------------------------------------ clients

    @property
    def sync(self) -> openai.OpenAI:
        """The client for threads."""
        with self._lock:
            if self._sync is None:
                if self._host is None:
                    self._sync = openai.OpenAI(**self._remote_options())
                else:
                    self._sync = Client(http_client=EngineHttpClient(self._host), **self._options())
            return self._sync

    @property
    def asynchronous(self) -> openai.AsyncOpenAI:
        """The client for event loops; of an endpoint one for each loop, whose sockets end with it."""
        if self._host is None:
            return self._of_loops.get()
        with self._lock:
            if self._asynchronous is None:
                self._asynchronous = AsyncClient(
                    http_client=AsyncEngineHttpClient(self._host), **self._options()
                )
            return self._asynchronous

    def _options(self) -> dict[str, Any]:
        given = self._settings
        timeout = {} if given["timeout"] is None else {"timeout": given["timeout"]}
        return {"default_headers": given["default_headers"], **timeout}

    def _remote_options(self) -> dict[str, Any]:
        given = self._settings
        return {
            "base_url": given["base_url"],
            "api_key": given["api_key"] or _key_of_environment(),
            "max_retries": given["max_retries"],
            **self._options(),
        }

    # ------------------------------------------------------------------ the model

    @property
    def model(self) -> str:
        """The name for requests; asks an endpoint, once, where none was given.

        Raises:
            EndpointError: the endpoint lists no model.
        """
        if self._host is not None:
            return self._host.model
        if self._model is None:
            self._model = str(self._remote_card()["id"])
        return self._model

    def load(self) -> Connection:
        """Load the model now; of an endpoint, see that it is there and has it. Returns itself.

        Raises:
            ConfigError, ModelError, DeviceMemoryError: the model cannot be run as asked.
            openai.APIConnectionError, EndpointError: no such endpoint, or it does not have the model.
        """
        if self._host is not None:
            self._host.open()
        else:
            self._remote_card()
        return self

    async def aload(self) -> Connection:
        """The same without holding up the event loop."""
        return await asyncio.to_thread(self.load)

    def context_window(self) -> int:
        """The most tokens that a prompt and its answer may have together; loads the model.

        Raises:
            EndpointError: the endpoint does not say (`max_model_len` of its list of models).
        """
        if self._host is not None:
            return self._host.open().engine.max_model_len
        length = self._remote_card().get("max_model_len")
        if not isinstance(length, int):
            raise EndpointError(
                f"{self._settings['base_url']} does not say how long its context is (max_model_len); "
                "state it where you use it"
            )
        return length

    def supports_tools(self) -> bool:
        """Whether the model's chat template shows tools; of an endpoint it is taken to. Loads the model."""
        if self._host is None:
            return True
        try:
            self._host.open().engine.parse_chat([{"role": "user", "content": "?"}], tools=[_A_TOOL])
        except RequestError:
            return False
        return True

    def _remote_card(self) -> Mapping[str, Any]:
        """What the endpoint lists of the model."""
        with self._lock:
            card = self._card
        if card is None:
            listed = [one.to_dict() for one in self.sync.models.list().data]
            wanted = [one for one in listed if self._model in (None, one.get("id"))]
            if not wanted:
                names = ", ".join(str(one.get("id")) for one in listed) or "none"
                raise EndpointError(
                    f"{self._settings['base_url']} does not serve {self._model or 'any model'}; it "
                    f"lists: {names}"
                )
            card = self._card = wanted[0]
        return card

    # ------------------------------------------------------------------ what openai's clients do not have

    def tokenize(
        self,
        text: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_special_tokens: bool | None = None,
    ) -> list[int]:
        """Token ids of a text, or of a conversation as its prompt, as the model sees them.

        Raises:
            RequestError: neither or both of `text` and `messages`.
            openai.APIError: refused; or the endpoint has no /tokenize, as vLLM's and quire's do.
        """
        return self._post(tokenize_call(text, messages, tools, add_special_tokens))

    async def atokenize(
        self,
        text: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_special_tokens: bool | None = None,
    ) -> list[int]:
        """`tokenize` for event loops."""
        return await self._apost(tokenize_call(text, messages, tools, add_special_tokens))

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, **fields: Any
    ) -> list[RankedDocument]:
        """The documents that answer a query best, best first.

        Args:
            top_n: how many; default: all.
            fields: further ones of the body of /v1/rerank, such as `truncate_prompt_tokens`.

        Raises:
            openai.APIError: refused; or the endpoint has no /v1/rerank, as vLLM's and quire's do.
        """
        return self._post(rerank_call(query, documents, top_n, fields))

    async def arerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, **fields: Any
    ) -> list[RankedDocument]:
        """`rerank` for event loops."""
        return await self._apost(rerank_call(query, documents, top_n, fields))

    def score(
        self, text_1: str | Sequence[str], text_2: str | Sequence[str], **fields: Any
    ) -> list[float]:
        """How well each of `text_2` fits `text_1`, of which there is one, or as many.

        Args:
            fields: further ones of the body of /v1/score.

        Raises:
            openai.APIError: refused; or the endpoint has no /v1/score, as vLLM's and quire's do.
        """
        return self._post(score_call(text_1, text_2, fields))

    async def ascore(
        self, text_1: str | Sequence[str], text_2: str | Sequence[str], **fields: Any
    ) -> list[float]:
        """`score` for event loops."""
        return await self._apost(score_call(text_1, text_2, fields))

    def _post(self, call: FurtherCall[T]) -> T:
        client, body = self.sync, {"model": self.model, **call.body}
        return call.read(client.post(_address(client, call.path), body=body, cast_to=object))

    async def _apost(self, call: FurtherCall[T]) -> T:
        client, body = self.asynchronous, {"model": await self.amodel(), **call.body}
        return call.read(await client.post(_address(client, call.path), body=body, cast_to=object))

    async def amodel(self) -> str:
        """`model` without holding up the event loop."""
        if self._host is not None or self._model is not None:
            return self.model
        return await asyncio.to_thread(lambda: self.model)

    # ------------------------------------------------------------------ life

    def close(self) -> None:
        """Abort what runs here and let go of the engine or the sockets; other connections go on."""
        with self._lock:
            client, self._sync = self._sync, None
        if self._host is not None:
            self._host.close()
        elif client is not None:
            client.close()

    async def aclose(self) -> None:
        """The same without holding up the event loop."""
        await self._of_loops.aclose()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        shown = {name: value for name, value in self._settings.items() if value is not None}
        if "api_key" in shown:
            shown["api_key"] = "..."
        shown.pop("default_headers", None)  # they may hold keys too
        if shown["max_retries"] == MAX_RETRIES:
            del shown["max_retries"]
        return f"connect({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __copy__(self) -> Connection:
        return Connection(**self._settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Connection:
        settings = {**self._settings, "engine": None}
        return Connection(**{**copy.deepcopy(settings, memo), "engine": self._settings["engine"]})

    def __reduce__(self) -> tuple[Any, ...]:
        if self._settings["engine"] is not None:
            raise ConfigError(
                "a connection that was given an engine cannot be pickled; give it the model's name and "
                "options",
                param="engine",
            )
        return partial(Connection, **self._settings), ()


def connect(
    model: str | os.PathLike[str] | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    engine: Any = None,
    timeout: float | None = None,
    max_retries: int = MAX_RETRIES,
    default_headers: Mapping[str, str] | None = None,
    **engine_options: Any,
) -> Connection:
    """A model in this process, or with `base_url` behind an endpoint; see `Connection`."""
    return Connection(
        model,
        base_url=base_url,
        api_key=api_key,
        engine=engine,
        timeout=timeout,
        max_retries=max_retries,
        default_headers=default_headers,
        **engine_options,
    )


def _check_names(engine_options: Iterable[str], own: Iterable[str]) -> None:
    """Refuse a misspelt option of `connect` as such; those of the engine are the engine's to refuse."""
    for name in engine_options:
        near = suggest(name, own)
        if near and name not in EngineConfig.__dataclass_fields__:
            raise UnknownParamError(f"unknown option {name!r}{near}", param=name)


def _key_of_environment() -> str:
    return os.environ.get(KEY_VARIABLE) or os.environ.get("OPENAI_API_KEY") or "none"


def _with_path(base_url: str) -> str:
    """An address without a path is that of a server, whose API stands at /v1."""
    return base_url if urlsplit(base_url).path.strip("/") else f"{base_url.rstrip('/')}/v1"


def _check_remote(base_url: str, engine: object, options: Mapping[str, Any]) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            f"base_url must be an address such as http://localhost:8000/v1; got {base_url!r}",
            param="base_url",
        )
    if engine is not None:
        raise ConfigError("give base_url or engine, not both", param="engine")
    if options:
        name = sorted(options)[0]
        raise ConfigError(
            f"{name} has no effect on a model behind base_url; give it to the server", param=name
        )


def _address(client: openai.OpenAI | openai.AsyncOpenAI, path: str) -> str:
    """Where a path of quire's and vLLM's is, of which some stand beside /v1."""
    return str(client.base_url).rstrip("/").removesuffix("/v1") + path
