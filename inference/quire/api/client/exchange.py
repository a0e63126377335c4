"""What openai's client has made of a call, as a request of ours; our answer, as openai's typed object.

Every use of what openai's client keeps to itself is here.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args
from urllib.parse import urlsplit

import openai
import pydantic
from openai import NotGiven, Omit
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from quire.api import limits
from quire.api.client.http import BASE_URL, httpx
from quire.api.client.routes import Ask
from quire.api.errors import error_body
from quire.errors import QuireError, RequestError

AnyClient = openai.OpenAI | openai.AsyncOpenAI

_SCALARS = frozenset({str, int, float, bool, type(None)})
# Headers by which openai's client asks itself for a response in place of the object in it.
_RAW = ("x-stainless-raw-response", "____stainless_override_cast_to")


def wants_response(options: Any) -> bool:
    """Whether the caller wants HTTP's response itself (`with_raw_response`, `with_streaming_response`)."""
    given = options.headers
    return isinstance(given, Mapping) and any(str(name).lower() in _RAW for name in given)


def ask_of(client: AnyClient, options: Any) -> Ask:
    """The request that openai's client would send.

    Args:
        options: openai's FinalRequestOptions.

    Raises:
        RequestError: the body is nested too deeply.
        TypeError: there is something in it that JSON does not have.
    """
    headers: dict[str, str] = {}
    for source in (client._custom_headers, options.headers):
        if isinstance(source, Mapping):
            headers |= {
                name.lower(): text for name, text in source.items() if isinstance(text, str)
            }
    body = options.json_data
    if options.extra_json is not None:
        body = {**(body or {}), **options.extra_json}
    method = options.method.upper()
    return Ask(method, _path(options.url), None if body is None else plain(body), headers)


def _path(url: str) -> str:
    if "://" in url:
        return urlsplit(url).path
    return f"{urlsplit(BASE_URL).path}/{url.lstrip('/')}".partition("?")[0]


def seconds_of(client: AnyClient, options: Any) -> float | None:
    """How long the caller waits for an answer, or for the next piece of a stream."""
    timeout = client.timeout if isinstance(options.timeout, NotGiven) else options.timeout
    seconds: float | None = timeout.read if isinstance(timeout, httpx.Timeout) else timeout
    return seconds


def plain(value: Any, depth: int = 1) -> Any:
    """What JSON would make of a value on its way to a server.

    Raises:
        RequestError: nested deeper than a body may be.
        TypeError: JSON does not have its type.
    """
    if type(value) in _SCALARS:
        return value
    if depth > limits.JSON_DEPTH:
        raise RequestError(f"the body is nested deeper than {limits.JSON_DEPTH} levels")
    if isinstance(value, Mapping):
        return {
            _key(name): plain(item, depth + 1)
            for name, item in value.items()
            if not isinstance(item, (NotGiven, Omit))
        }
    if isinstance(value, (list, tuple)):
        return [one if type(one) in _SCALARS else plain(one, depth + 1) for one in value]
    if isinstance(value, pydantic.BaseModel):
        return plain(value.model_dump(exclude_unset=True, mode="json", by_alias=True), depth)
    if isinstance(value, str):  # such as an Enum's member
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _key(name: Any) -> str:
    if isinstance(name, str):
        return name
    if name is None or isinstance(name, bool):
        return {None: "null", True: "true", False: "false"}[name]
    if isinstance(name, (int, float)):
        return repr(name)
    raise TypeError(f"keys must be str, int, float, bool or None, not {type(name).__name__}")


def request_of(ask: Ask) -> httpx.Request:
    """What an exception or a stream of openai's names as its request."""
    return httpx.Request(ask.method, f"{BASE_URL.removesuffix('/v1')}{ask.path}")


def status_error(client: AnyClient, ask: Ask, error: QuireError) -> openai.APIStatusError:
    """The exception that openai's client raises when a server answers with this error."""
    status, body = error_body(error)
    headers = {"x-request-id": ask.request_id}
    response = httpx.Response(status, headers=headers, json=body, request=request_of(ask))
    return client._make_status_error_from_response(response)


def made(client: AnyClient, cast_to: Any, response: httpx.Response, body: dict[str, Any]) -> Any:
    """The object that openai's client makes of a body.

    The pieces of streams are validated, which takes a twentieth of the time of openai's own way and comes to
    the same; what openai has no value for (finish_reason "timeout") then goes that way all the same.
    """
    if cast_to in (ChatCompletionChunk, Completion):
        with suppress(pydantic.ValidationError):
            return cast_to.model_validate(body)
    return client._process_response_data(data=body, cast_to=cast_to, response=response)


def typed(client: AnyClient, cast_to: Any, ask: Ask, options: Any, body: dict[str, Any]) -> Any:
    """The object that openai's client makes of a whole answer."""
    if cast_to is type(None):
        return None
    response = httpx.Response(200, request=request_of(ask))
    answer = made(client, cast_to, response, body)
    if not isinstance(options.post_parser, NotGiven):
        answer = options.post_parser(answer)
    if isinstance(answer, openai.BaseModel):
        answer._request_id = ask.request_id
    return answer


def chunk_type(stream_cls: Any) -> Any:
    """`ChatCompletionChunk` of `Stream[ChatCompletionChunk]`."""
    return get_args(stream_cls)[0]
