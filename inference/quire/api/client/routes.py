"""A request as a path and a body, to the method of `Service` that answers it.

Owns which paths there are. Knows neither threads nor openai's client; what a body means is the service's.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from quire.api.calls import Call, Reply, Stream
from quire.api.limits import REQUEST_ID_CHARACTERS
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
from quire.errors import InvalidParamsError, NotFoundError, suggest

Method = Callable[[Service, Any, Call], Awaitable[Reply | Stream]]

# Path -> model of the body, method.
POSTS: dict[str, tuple[type[Body], Method]] = {
    "/v1/chat/completions": (ChatCompletionRequest, Service.chat_completions),
    "/v1/completions": (CompletionRequest, Service.completions),
    "/v1/responses": (ResponsesRequest, Service.responses),
    "/v1/embeddings": (EmbeddingRequest, Service.embeddings),
    "/v1/rerank": (RerankRequest, Service.rerank),
    "/v2/rerank": (RerankRequest, Service.rerank),
    "/rerank": (RerankRequest, Service.rerank),
    "/v1/score": (ScoreRequest, Service.score),
    "/score": (ScoreRequest, Service.score),
    "/tokenize": (TokenizeRequest, Service.tokenize),
    "/detokenize": (DetokenizeRequest, Service.detokenize),
}
NAMED_EVENTS = frozenset({"/v1/responses"})  # whose streams end without "[DONE]"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request on its way to a service.

    Args:
        method: of HTTP, in capitals.
        path: from the root, percent-encoded.
        body: JSON, or what it would be parsed to.
        headers: names in lower case.
        made_id: of a request whose headers bring none.
    """

    method: str
    path: str
    body: bytes | Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    made_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def is_named(self) -> bool:
        """Whether the caller gave it an id, of 1 to 128 visible ASCII characters."""
        given = self.headers.get("x-request-id", "")
        return 0 < len(given) <= REQUEST_ID_CHARACTERS and all("!" <= c <= "~" for c in given)

    @property
    def request_id(self) -> str:
        """The caller's id, or a new one."""
        return self.headers["x-request-id"] if self.is_named else self.made_id

    def call(self) -> Call:
        """Who calls, on which terms.

        Raises:
            InvalidParamsError: X-Request-Timeout is no number of seconds above 0.
        """
        traces = {name: self.headers.get(name) for name in ("traceparent", "tracestate")}
        return Call(
            request_id=self.request_id,
            timeout=_seconds(self.headers.get("x-request-timeout")),
            named=self.is_named,
            trace_headers={key: text for key, text in traces.items() if text is not None} or None,
        )


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidParamsError(
            "X-Request-Timeout must be a number of seconds above 0", param="X-Request-Timeout"
        )
    return seconds


async def answer(service: Service, ask: Ask) -> Reply | Stream:
    """What the service says to it.

    Raises:
        NotFoundError: no such path, with the nearest one.
        QuireError: as the service's method.
    """
    call = ask.call()
    if ask.method == "POST" and ask.path in POSTS:
        model, method = POSTS[ask.path]
        request, warnings = service.parse(model, {} if ask.body is None else ask.body)
        reply = await method(service, request, call)
        if isinstance(reply, Reply):
            return Reply(reply.body, (*warnings, *reply.warnings))
        return Stream(reply.events, (*warnings, *reply.warnings))
    match ask.method, *(unquote(part) for part in ask.path.strip("/").split("/")):
        case "GET", "v1", "models":
            return Reply(service.models())
        case "GET", "v1", "models", *name:
            return Reply(service.model("/".join(name)))
        case "GET", "v1", "responses", response_id:
            return await service.retrieve_response(response_id, call)
        case "DELETE", "v1", "responses", response_id:
            return await service.delete_response(response_id, call)
        case "POST", "v1", "responses", response_id, "cancel":
            return await service.cancel_response(response_id, call)
    raise NotFoundError(
        f"quire does not serve {ask.method} {ask.path[:128]}{suggest(ask.path, POSTS)}"
    )
