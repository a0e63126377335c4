"""Any exception as OpenAI's error object: all four keys, bounded, and nothing of ours or another's in it."""

from __future__ import annotations

from typing import Any

from quire.api import limits
from quire.errors import EngineClosedError, EngineDeadError, QuireError, RequestFailedError

# The messages of these quote an exception, which may hold a path, an address or another user's text.
# They are for the log; a client gets these.
_PUBLIC: dict[type[QuireError], str] = {
    EngineClosedError: "the server is shutting down",
    EngineDeadError: "the engine has stopped; the server must be restarted",
    RequestFailedError: "the model failed on this request; others are not affected",
}
_INTERNAL = "an internal error occurred; the server's log has it"


def error_body(error: BaseException) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error.

    Returns:
        The status, and `{"error": {"message", "type", "param", "code"}}` of at most 16 kB.
    """
    if not isinstance(error, QuireError):
        return 500, _body(_INTERNAL, QuireError.type, None, QuireError.code)
    message = error.message
    for cls, public in _PUBLIC.items():
        if isinstance(error, cls):
            message = public
            break
    return error.status, _body(message, error.type, error.param, error.code)


def _body(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    # A half surrogate pair, which may stand in what is quoted, could not be written.
    readable = message.encode("utf-8", "replace").decode()
    if len(readable) > limits.ERROR_CHARACTERS:
        readable = f"{readable[: limits.ERROR_CHARACTERS - 3]}..."
    return {
        "error": {
            "message": readable,
            "type": kind,
            "param": None if param is None else param[:256],
            "code": code,
        }
    }
