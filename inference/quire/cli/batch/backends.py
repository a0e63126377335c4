"""Who answers the requests of a batch: an engine in this process, or a server.

Both take OpenAI's paths and bodies and give its statuses and bodies back. They know nothing of files,
and try each request once.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from quire.cli.batch.files import Result
from quire.cli.remote import CONNECT_SECONDS, base_url, find_key, translate
from quire.errors import EndpointError, EngineDeadError, NotFoundError, QuireError, suggest

if TYPE_CHECKING:
    from quire.api.protocol.fields import Body
    from quire.api.service import Call, Reply, Stream
    from quire.engine.llm import LLM

Request = TypeVar("Request", bound="Body")


class Backend(Protocol):
    """What answers requests; safe to ask from many tasks at once."""

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[Result, float | None]:
        """Answer one request.

        Returns:
            The result, and after how many seconds to try again where the backend says so.

        Raises:
            EndpointError, EngineDeadError: nobody can answer, not this request nor another.
        """
        ...

    async def check(self) -> None:
        """Raise at once what would stop every request.

        Raises:
            EndpointError, RequestError, EngineDeadError: the server is not there, or refuses the key.
        """
        ...

    async def close(self) -> None: ...


class LocalBackend:
    """Answers by an engine in this process, as the server of `quire serve` would.

    Args:
        llm: holds the engine; whoever made it closes it.
        names: by which requests may call the model; none: the one it was loaded by.
    """

    def __init__(self, llm: LLM, names: Sequence[str]) -> None:
        from quire.api.protocol import (
            ChatCompletionRequest,
            CompletionRequest,
            EmbeddingRequest,
            RerankRequest,
            ResponsesRequest,
            ScoreRequest,
        )
        from quire.api.service import Service, ServiceOptions

        self._service = Service(llm.engine, ServiceOptions(served_model_names=tuple(names)))
        self._endpoints = {
            "/v1/chat/completions": self._endpoint(
                ChatCompletionRequest, self._service.chat_completions
            ),
            "/v1/completions": self._endpoint(CompletionRequest, self._service.completions),
            "/v1/responses": self._endpoint(ResponsesRequest, self._service.responses),
            "/v1/embeddings": self._endpoint(EmbeddingRequest, self._service.embeddings),
            "/v1/rerank": self._endpoint(RerankRequest, self._service.rerank),
            "/v1/score": self._endpoint(ScoreRequest, self._service.score),
        }

    def _endpoint(
        self, model: type[Request], method: Callable[[Request, Call], Awaitable[Reply | Stream]]
    ) -> Callable[[Mapping[str, Any], Call], Awaitable[Reply | Stream]]:
        async def answer(body: Mapping[str, Any], call: Call) -> Reply | Stream:
            request, _ = self._service.parse(model, body)
            return await method(request, call)

        return answer

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[Result, float | None]:
        from quire.api.errors import error_body
        from quire.api.service import Call, Reply

        request_id = uuid.uuid4().hex
        try:
            if path not in self._endpoints:
                near = suggest(path, self._endpoints)
                raise NotFoundError(
                    f"url {path!r} is none of {', '.join(self._endpoints)}{near}", param="url"
                )
            reply = await self._endpoints[path](body, Call(request_id))
            assert isinstance(reply, Reply), "streams are refused when the file is read"
            return Result(200, reply.body, request_id), None
        except EngineDeadError:
            raise
        except QuireError as error:
            status, answer = error_body(error)
            return Result(status, answer, request_id), getattr(error, "retry_after", None)

    async def check(self) -> None:
        self._service.engine.check_health()

    async def close(self) -> None:
        """End the service; the engine is not ours to close."""
        await self._service.aclose()


class RemoteBackend:
    """Answers by a server.

    Args:
        url: of the server.
        api_key: default: the environment's.

    Raises:
        ConfigError: the address is none.
    """

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        from openai import AsyncOpenAI, Timeout

        self.url = base_url(url)
        self._root = self.url.removesuffix("/v1")  # a batch's paths begin with it
        self._client = AsyncOpenAI(
            base_url=self.url,
            api_key=find_key(api_key) or "none",
            max_retries=0,
            timeout=Timeout(None, connect=CONNECT_SECONDS),
        )

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[Result, float | None]:
        from openai import APIError, APIStatusError

        request_id = uuid.uuid4().hex
        try:
            answer = await self._client.post(
                self._root + path,
                cast_to=object,
                body=body,
                options={"headers": {"X-Request-Id": request_id}},
            )
        except APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {"message": str(error.body)}
            wait = error.response.headers.get("retry-after", "")
            seconds = float(wait) if re.fullmatch(r"\d{1,6}(\.\d+)?", wait) else None
            return Result(error.status_code, {"error": body}, request_id), seconds
        except (APIError, ValueError) as error:
            raise translate(error, self.url) from error
        if not isinstance(answer, dict):
            raise EndpointError(f"{self.url} gave no OpenAI answer; check the address")
        return Result(200, answer, request_id), None

    async def check(self) -> None:
        from openai import APIError

        try:
            await self._client.get("/models", cast_to=object)
        except APIError as error:
            raise translate(error, self.url) from error

    async def close(self) -> None:
        await self._client.close()
