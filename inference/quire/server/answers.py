"""JSON answers over ASGI, errors among them: always OpenAI's object, whatever went wrong.

It knows the errors of HTTP itself (no such path, a body too long); those of requests are told by
`quire.api.errors`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

from starlette.types import Send

from quire.api.errors import error_body
from quire.api.wire import to_json
from quire.errors import QuireError

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]


class HttpError(Exception):
    """A request that HTTP itself refuses.

    Args:
        status: of the answer; from 500 on its type is "server_error".
        code: `error.code`.
        message: says what to do.
        param: field or header at fault.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def send_json(send: Send, status: int, value: Any, headers: Headers | None = None) -> None:
    """Answer with JSON."""
    await send_body(send, status, to_json(value), b"application/json", headers)


async def send_body(
    send: Send, status: int, body: bytes, content_type: bytes, headers: Headers | None = None
) -> None:
    """Answer with a body that is at hand."""
    start: Headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *(headers or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: BaseException) -> None:
    """Answer with OpenAI's error object; what we did not foresee is logged and told in one sentence."""
    if isinstance(error, HttpError):
        await send_json(send, error.status, error.body, error.headers)
        return
    status, body = error_body(error)
    if not isinstance(error, QuireError):  # what the model failed on the engine has told
        logger.error("a request failed", exc_info=error)
    headers: Headers = []
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None or status == 503:
        headers.append((b"retry-after", str(max(1, math.ceil(retry_after or 1))).encode()))
    await send_json(send, status, body, headers)
