"""`Service`: the endpoints of one engine, as methods. What carries them (HTTP, a Python call) is above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from quire.api import chat, completions, models, pooling, tokenization
from quire.api.backend import Backend, ServiceOptions
from quire.api.calls import Call, Event, Events, Reply, Stream
from quire.api.parse import parse
from quire.api.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    RerankRequest,
    ResponsesRequest,
    ScoreRequest,
    TokenizeRequest,
)
from quire.api.protocol.fields import Body
from quire.api.responses import Responses
from quire.engine.engine import Engine

__all__ = ["Call", "Event", "Events", "Reply", "Service", "ServiceOptions", "Stream"]

Model = TypeVar("Model", bound=Body)


class Service:
    """What OpenAI's API does, over one engine.

    Whatever a method refuses it refuses before it returns, also where the answer is a stream. Cancelling
    a call, or closing the events of a stream, aborts its requests before the engine's next step.

    Args:
        engine: whoever made it closes it, after `close`.

    Raises: every method, the errors that `quire.api.errors.error_body` makes answers of: RequestError
        for what cannot be served as it was asked, QueueFullError, EngineDrainingError and EngineDeadError
        where the engine takes nothing, RequestFailedError where the model failed on it.
    """

    def __init__(self, engine: Engine, options: ServiceOptions | None = None) -> None:
        self._backend = Backend(engine, options or ServiceOptions())
        self._responses = Responses(self._backend)

    @property
    def engine(self) -> Engine:
        """The engine that runs what is asked."""
        return self._backend.engine

    def parse(
        self, model: type[Model], raw: bytes | Mapping[str, Any]
    ) -> tuple[Model, tuple[str, ...]]:
        """A body as its model, with warnings about fields left out; see `quire.api.parse`."""
        return parse(model, raw, self._backend.options.allow_unknown_fields)

    async def completions(self, request: CompletionRequest, call: Call) -> Reply | Stream:
        """POST /v1/completions."""
        return await completions.create(self._backend, request, call)

    async def chat_completions(self, request: ChatCompletionRequest, call: Call) -> Reply | Stream:
        """POST /v1/chat/completions."""
        return await chat.create(self._backend, request, call)

    async def responses(self, request: ResponsesRequest, call: Call) -> Reply | Stream:
        """POST /v1/responses."""
        return await self._responses.create(request, call)

    async def retrieve_response(self, response_id: str, call: Call) -> Reply:
        """GET /v1/responses/{id}."""
        return self._responses.retrieve(response_id, call)

    async def cancel_response(self, response_id: str, call: Call) -> Reply:
        """POST /v1/responses/{id}/cancel."""
        return await self._responses.cancel(response_id, call)

    async def delete_response(self, response_id: str, call: Call) -> Reply:
        """DELETE /v1/responses/{id}."""
        return await self._responses.delete(response_id, call)

    async def embeddings(self, request: EmbeddingRequest, call: Call) -> Reply:
        """POST /v1/embeddings."""
        return await pooling.embeddings(self._backend, request, call)

    async def rerank(self, request: RerankRequest, call: Call) -> Reply:
        """POST /v1/rerank."""
        return await pooling.rerank(self._backend, request, call)

    async def score(self, request: ScoreRequest, call: Call) -> Reply:
        """POST /v1/score."""
        return await pooling.score(self._backend, request, call)

    async def tokenize(self, request: TokenizeRequest, call: Call) -> Reply:
        """POST /tokenize."""
        return await tokenization.tokenize(self._backend, request, call)

    async def detokenize(self, request: DetokenizeRequest, call: Call) -> Reply:
        """POST /detokenize."""
        return await tokenization.detokenize(self._backend, request, call)

    def models(self) -> dict[str, Any]:
        """GET /v1/models."""
        return models.model_list(self._backend)

    def model(self, name: str) -> dict[str, Any]:
        """GET /v1/models/{id}."""
        return models.model_card(self._backend, name)

    async def aclose(self) -> None:
        """Abort what runs in the background, and end the threads."""
        await self._responses.aclose()
        self._backend.close()
