"""Every error that quire raises, in one tree. It knows nothing of the rest of the package.

    QuireError                        anything below
    ├── ConfigError                   an option of the engine is wrong                       (ValueError)
    │   └── CacheTooSmallError        the KV cache cannot hold one request of full length
    ├── ModelError                    the model cannot be had
    │   ├── ModelNotFoundError        no such folder or repository, or no config.json
    │   ├── UnsupportedModelError     an architecture or feature quire does not have
    │   └── WeightsError              a tensor is missing, unexpected, misshapen or unreadable
    ├── MissingDependencyError        an optional package is not installed                   (ImportError)
    ├── DeviceMemoryError             weights or KV cache do not fit into memory             (MemoryError)
    ├── RequestError                  what a caller asked for cannot be done                 (ValueError)
    │   ├── InvalidPromptError        empty, of a wrong type, or with ids out of the vocabulary
    │   ├── PromptTooLongError        longer than the context allows
    │   ├── UnsupportedTaskError      the model is not made for it: chat with an embedder, say
    │   ├── NotFoundError             what it names is not there (any more)
    │   ├── ScriptError               a scripted engine has no answer to it, or none that fits
    │   │   └── DriftError            a recording has no such request
    │   └── InvalidParamsError        a sampling parameter is out of range
    │       ├── UnsupportedParamError a field of OpenAI's or vLLM's that quire does not serve
    │       └── UnknownParamError     a parameter that does not exist, or no longer does     (TypeError)
    ├── RequestFailedError            the model failed on this one request; the engine goes on
    │   └── RefusedValueError         a validator refused every value of a field         (ValueError)
    ├── RequestTimeoutError       its time was over before there was anything to show
    ├── RequestAbortedError           the request was aborted while its caller still waited
    ├── QueueFullError                too much waits already; `retry_after` says when to come again
    ├── EngineDrainingError           the engine finishes what it has and takes nothing new
    ├── EndpointError                 a server that quire is a client of fails, or cannot be reached
    └── EngineDeadError               the engine stopped for good; `__cause__` says why      (RuntimeError)
        └── EngineClosedError         the engine was closed by its owner

`status` is the HTTP status an endpoint answers with, `code` the `error.code` and `type` the
`error.type` of OpenAI's error object. `param` names the field at fault where there is one, `retry_after` the
seconds after which the same request may succeed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class QuireError(Exception):
    """Base of all errors raised by quire."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.param, self.retry_after)


def _rebuild(
    cls: type[QuireError], message: str, param: str | None, retry_after: int | None
) -> QuireError:
    return cls(message, param=param, retry_after=retry_after)


class ConfigError(QuireError, ValueError):
    """An option given to the engine has a value it cannot have."""

    status = 400
    code = "invalid_config"
    type = "invalid_request_error"


class CacheTooSmallError(ConfigError):
    """The KV cache holds fewer tokens than one request of `max_model_len` needs."""

    code = "kv_cache_too_small"


class ModelError(QuireError):
    """The model cannot be loaded."""

    code = "model_error"


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model where the name points: folder, cache or hub."""

    status = 404
    code = "model_not_found"
    type = "invalid_request_error"

    def __str__(self) -> str:  # FileNotFoundError would print errno and filename
        return self.message


class UnsupportedModelError(ModelError):
    """The checkpoint is readable, but quire cannot run what it describes."""

    status = 400
    code = "unsupported_model"
    type = "invalid_request_error"


class WeightsError(ModelError):
    """The checkpoint's tensors do not fit the model that its config describes."""

    code = "invalid_weights"


class MissingDependencyError(QuireError, ImportError):
    """An optional package is needed; the message holds the install command."""

    status = 501
    code = "missing_dependency"


class DeviceMemoryError(QuireError, MemoryError):
    """Weights or KV cache do not fit into the device's memory."""

    status = 503
    code = "out_of_memory"


class RequestError(QuireError, ValueError):
    """A request cannot be served as it was made; no other request is touched."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class InvalidPromptError(RequestError):
    """The prompt is empty, of a wrong type, or holds ids outside the vocabulary."""

    code = "invalid_prompt"


class PromptTooLongError(RequestError):
    """Prompt, or prompt and completion, exceed the model's context."""

    code = "context_length_exceeded"


class UnsupportedTaskError(RequestError):
    """The model is not made for what is asked; the message says what it is made for."""

    code = "unsupported_task"


class NotFoundError(RequestError):
    """The request names something that does not exist, or is not kept any more."""

    status = 404
    code = "not_found"


class ScriptError(RequestError):
    """What a scripted engine (`quire.testing`) is to say does not go with the request."""

    code = "no_scripted_answer"


class DriftError(ScriptError):
    """The request differs from all that were recorded; the message shows the difference."""

    code = "request_drifted"


class InvalidParamsError(RequestError):
    """A sampling parameter has a value it cannot have."""

    code = "invalid_parameter"


class UnsupportedParamError(InvalidParamsError):
    """A field that other endpoints serve and quire does not; the message says what to do instead."""

    code = "unsupported_parameter"


class UnknownParamError(InvalidParamsError, TypeError):
    """A parameter name that does not exist (any more)."""

    code = "unknown_parameter"


class RequestFailedError(QuireError):
    """Running this request failed (an exception or NaN logits); the engine goes on."""

    code = "request_failed"


class RefusedValueError(RequestFailedError, ValueError):
    """A validator refused every value that a field was given, and the request asked to be told so."""

    status = 422
    code = "value_refused"


class RequestTimeoutError(QuireError):
    """The request's time was over, and nothing of an answer could be given."""

    status = 504
    code = "request_timeout"


class RequestAbortedError(QuireError):
    """The request was aborted by someone else while its caller waited."""

    status = 499
    code = "request_aborted"


class QueueFullError(QuireError):
    """As many requests or tokens wait as may; come again after `retry_after` seconds."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class EngineDrainingError(QuireError):
    """The engine is being stopped: it finishes the requests it has and takes no new ones."""

    status = 503
    code = "shutting_down"


class EndpointError(QuireError):
    """A server that quire is a client of cannot be reached, failed, or gave no OpenAI answer."""

    status = 502
    code = "endpoint_error"


class EngineDeadError(QuireError, RuntimeError):
    """The engine thread ended by an exception, kept as `__cause__`; make a new engine."""

    status = 503
    code = "engine_dead"


class EngineClosedError(EngineDeadError):
    """The engine was closed; make a new one to go on."""

    code = "engine_closed"


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence ending for an unknown name: `; did you mean 'x'?`, or nothing if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
