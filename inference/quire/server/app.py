"""The ASGI application: every path of the endpoint, behind the middlewares that guard it.

    app = create_app(service, ServerOptions())      # any ASGI server can run it

It owns the table of paths. The process around it is `quire.server.run`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

import quire
from quire.api.calls import Call, Reply, Stream
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
from quire.api.service import Service
from quire.api.wire import DONE
from quire.server.answers import HttpError, send_body, send_json
from quire.server.endpoints import Operation, Path, PostJson, call_of, get_json
from quire.server.metrics import Metrics
from quire.server.middleware import Activity, Authenticate, Bound, Drain, Observe, header
from quire.server.openapi import describe
from quire.server.options import ServerOptions
from quire.server.page import send_page

# Clients' types of answers, imported for /openapi.json alone.
CHAT_COMPLETION = "openai.types.chat:ChatCompletion"
COMPLETION = "openai.types:Completion"
EMBEDDINGS = "openai.types:CreateEmbeddingResponse"
RESPONSE = "openai.types.responses:Response"


def create_app(service: Service, options: ServerOptions, keys: Sequence[str] = ()) -> App:
    """The endpoint over `service`, as an ASGI application.

    Args:
        service: answers requests; whoever made it closes its engine.
        options: bounds, open paths and CORS are taken from them; host, port and TLS are the runner's.
        keys: API keys; none: everyone may come.
    """
    return App(service, options, keys)


class App:
    """ASGI application of one service.

    Attributes:
        activity: what it is busy with; setting `draining` ends the taking on of requests.
        operations: every path.
        model_name: the first of the model's names.
        metrics: what /metrics shows.
    """

    def __init__(self, service: Service, options: ServerOptions, keys: Sequence[str]) -> None:
        self._service = service
        self._options = options
        self.activity = Activity()
        self.operations = self._operations()
        self.model_name: str = service.models()["data"][0]["id"]
        self.metrics = Metrics(service.engine, self.model_name)
        self._is_guarded = bool(keys)
        self._app = self._stack(options, keys)

    def _stack(self, options: ServerOptions, keys: Sequence[str]) -> ASGIApp:
        by_path: dict[str, list[Operation]] = {}
        for operation in self.operations:
            by_path.setdefault(operation.path, []).append(operation)
        routes = [Route(path, Path(path, found)) for path, found in by_path.items()]
        open_paths = ["/health", "/metrics"] if options.open_metrics else ["/health"]
        app: ASGIApp = Router(routes, redirect_slashes=False, default=_no_path)
        app = Bound(app, options.max_request_bytes, options.body_timeout)
        app = Drain(app, self.activity, ["/health", "/metrics", "/ping"])
        app = Authenticate(app, keys, open_paths)
        if options.allowed_origins:
            app = CORSMiddleware(
                app,
                allow_origins=options.allowed_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["X-Request-Id", "X-Quire-Warning", "Retry-After"],
            )
        return Observe(app, self.activity, self.metrics.note)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return describe(self.operations, guarded=self._is_guarded)

    def _operations(self) -> list[Operation]:
        """Every path; /openapi.json and the routes are made from it."""
        service = self._service
        return [
            self._post("/v1/chat/completions", "Answer a conversation", ChatCompletionRequest,
                       service.chat_completions, CHAT_COMPLETION, streams=True, last=DONE),
            self._post("/v1/completions", "Continue one or more prompts", CompletionRequest,
                       service.completions, COMPLETION, streams=True, last=DONE),
            self._post("/v1/responses", "Answer an input", ResponsesRequest,
                       service.responses, RESPONSE, streams=True),
            Operation(("GET",), "/v1/responses/{response_id}", "A stored response",
                      get_json(self._retrieve), answer=RESPONSE),
            Operation(("DELETE",), "/v1/responses/{response_id}", "Forget a stored response",
                      get_json(self._delete)),
            Operation(("POST",), "/v1/responses/{response_id}/cancel", "End a background response",
                      get_json(self._cancel), answer=RESPONSE),
            self._post("/v1/embeddings", "Texts as vectors", EmbeddingRequest,
                       service.embeddings, EMBEDDINGS),
            *(self._post(path, "Order documents by a query", RerankRequest, service.rerank)
              for path in ("/v1/rerank", "/v2/rerank", "/rerank")),
            *(self._post(path, "Score pairs of texts", ScoreRequest, service.score)
              for path in ("/v1/score", "/score")),
            Operation(("GET",), "/v1/models", "The models that are served",
                      get_json(lambda scope: service.models())),
            Operation(("GET",), "/v1/models/{model:path}", "One model",
                      get_json(lambda scope: service.model(scope["path_params"]["model"]))),
            self._post("/tokenize", "Text or messages as token ids", TokenizeRequest, service.tokenize),
            self._post("/detokenize", "Token ids as text", DetokenizeRequest, service.detokenize),
            Operation(("GET",), "/health", "Whether a request would be answered", self._health),
            Operation(("GET", "POST"), "/ping", "The same, for SageMaker", self._health),
            Operation(("GET",), "/load", "Running and waiting requests", get_json(self._load)),
            Operation(("GET",), "/metrics", "Metrics for Prometheus", self._metrics,
                      content_type="text/plain"),
            Operation(("GET",), "/version", "The version of quire",
                      get_json(lambda scope: {"version": quire.__version__})),
            Operation(("GET",), "/openapi.json", "This description",
                      get_json(lambda scope: self.schema)),
            Operation(("GET",), "/", "A page that shows the load, and a chat box", self._index,
                      content_type="text/html"),
        ]  # fmt: skip

    def _post(
        self,
        path: str,
        summary: str,
        model: type[Body],
        method: Callable[[Any, Call], Awaitable[Reply | Stream]],
        answer: str | None = None,
        *,
        streams: bool = False,
        last: bytes = b"",
    ) -> Operation:
        keep_alive = self._options.sse_keep_alive_interval
        handle = PostJson(self._service, model, method, keep_alive, last)
        return Operation(("POST",), path, summary, handle, model, answer, streams=streams)

    def _retrieve(self, scope: Scope) -> Any:
        return self._service.retrieve_response(scope["path_params"]["response_id"], call_of(scope))

    def _delete(self, scope: Scope) -> Any:
        return self._service.delete_response(scope["path_params"]["response_id"], call_of(scope))

    def _cancel(self, scope: Scope) -> Any:
        return self._service.cancel_response(scope["path_params"]["response_id"], call_of(scope))

    def _load(self, scope: Scope) -> dict[str, Any]:
        load = dataclasses.asdict(self._service.engine.load())
        return {"server_load": len(load["requests"]), **load}

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        health = self._service.engine.health()
        # No more than a word: this path is open, and a reason may quote an exception.
        status = "draining" if health.ok and self.activity.draining else health.status
        await send_json(send, 200 if status == "ok" else 503, {"status": status})

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        text, content_type = self.metrics.render(header(scope, b"accept") or "")
        await send_body(send, 200, text, content_type.encode())

    async def _index(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_page(send)


async def _no_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise HttpError(404, "not_found", "no such path; GET /openapi.json lists them")
