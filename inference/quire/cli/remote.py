"""A server's models for the commands: where it is, its key, and `RemoteLLM`, which looks like an `LLM`.

It speaks OpenAI's protocol through the official client and turns its errors into quire's. It knows
nothing of what the commands print.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from quire.cli.flags import Flags, Parser
from quire.errors import (
    ConfigError,
    EndpointError,
    InvalidParamsError,
    QuireError,
    RequestError,
    RequestFailedError,
)
from quire.outputs import CompletionOutput, Message, RequestOutput
from quire.sampling_params import SamplingParams

if TYPE_CHECKING:
    from openai import OpenAI

    from quire.cli import MakeLLM

KEY_VARIABLES = ("QUIRE_API_KEY", "OPENAI_API_KEY")
CONNECT_SECONDS = 10.0
MAX_SEQUENCES = 128  # of one request; servers bound prompts times n
GIVES_TOKEN_IDS = ("quire", "vllm")  # servers that know the field return_token_ids

# Fields of SamplingParams that an endpoint has no word for, or whose answer does not fit a RequestOutput.
ENGINE_ONLY = {
    "detokenize": "an endpoint answers in text: leave it out",
    "logprobs": "log-probabilities are read from a model in this process alone: leave out --url",
    "prompt_logprobs": "log-probabilities are read from a model in this process alone: leave out --url",
}


class Pieces(Protocol):
    """Outputs that hold what is new each; closing it ends the request."""

    def __iter__(self) -> Iterator[RequestOutput]: ...

    def close(self) -> None: ...


class TextModel(Protocol):
    """What `generate` and `chat` talk to: a model in this process, or one behind an endpoint."""

    def generate(
        self, prompts: Sequence[str], sampling_params: SamplingParams, *, use_tqdm: bool = True
    ) -> list[RequestOutput]: ...

    def stream(self, prompt: str, sampling_params: SamplingParams) -> Pieces: ...

    def stream_chat(
        self, messages: list[dict[str, Any]], sampling_params: SamplingParams
    ) -> Pieces: ...

    def __enter__(self) -> TextModel: ...

    def __exit__(self, *exception: object) -> None: ...


def add_endpoint_flags(parser: Parser) -> None:
    """Give `parser` the flags `--url` and `--api-key`."""
    group = parser.add_argument_group("endpoint")
    group.add_argument(
        "--url",
        metavar="URL",
        help="ask a running server, such as http://localhost:8000, in place of a model in this "
        "process; --model is then one of its names (default: its first)",
    )
    add_key_flag(group)


def add_key_flag(group: argparse._ArgumentGroup) -> None:
    """The flag `--api-key`."""
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"key of the server; default: {' or '.join(KEY_VARIABLES)} of the environment, which "
        "other users of this machine do not see",
    )


def open_model(given: argparse.Namespace, engine: Flags, make_llm: MakeLLM) -> TextModel:
    """The model that the flags name, here or behind `--url`.

    Raises:
        ConfigError: flags of an engine with `--url`, or a key without it.
        ModelError, EndpointError: the model or the server cannot be had.
    """
    options = engine.read(given)
    if given.url is None:
        if given.api_key is not None:
            raise ConfigError("--api-key belongs to --url; leave it out", param="api_key")
        return make_llm(**options)
    check_no_engine_flags(options)
    return RemoteLLM(given.url, model=options.get("model"), api_key=given.api_key)


def check_no_engine_flags(options: Mapping[str, Any]) -> None:
    """Refuse options of an engine, but the model's name, where a server has the engine."""
    for name in options:
        if name != "model":
            raise ConfigError(
                f"--{name.replace('_', '-')} is for an engine in this process, and with --url the "
                "server has it: leave it out here, and give it to the server",
                param=name,
            )


def base_url(url: str) -> str:
    """The address that paths such as `/completions` are added to; `/v1` where `url` has no path.

    Raises:
        ConfigError: not an http or https address.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise ConfigError(
            f"{url!r} is not the address of a server; write it as http://localhost:8000",
            param="url",
        )
    return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def find_key(api_key: str | None) -> str | None:
    """The given key, or the environment's."""
    return api_key or next(filter(None, map(os.environ.get, KEY_VARIABLES)), None)


class RemoteLLM:
    """A model behind an OpenAI-compatible endpoint, with the methods of `LLM` that commands use.

    Args:
        url: of the server.
        model: one of its names; default: its first.
        api_key: default: the environment's.

    Raises:
        ConfigError: the address is none.
        EndpointError: the server cannot be reached.
        RequestError: it refuses the key.
    """

    def __init__(self, url: str, *, model: str | None = None, api_key: str | None = None) -> None:
        from openai import OpenAI, Timeout

        self.url = base_url(url)
        self._client = OpenAI(
            base_url=self.url,
            api_key=find_key(api_key) or "none",
            timeout=Timeout(None, connect=CONNECT_SECONDS),
            max_retries=0,  # someone sits before the terminal
        )
        try:
            cards = _models(self._client, self.url)
        except BaseException:
            self._client.close()
            raise
        owners = {str(card.get("id")): card.get("owned_by") for card in cards}
        self.model = model or next(iter(owners))
        self._gives_token_ids = owners.get(self.model) in GIVES_TOKEN_IDS

    def generate(
        self, prompts: Sequence[str], sampling_params: SamplingParams, *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        """Complete prompts, as many in one request as servers take; `LLM.generate` says the rest."""
        del use_tqdm  # answers come all at once
        body = self._body(sampling_params)
        count = sampling_params.n
        at_once = max(MAX_SEQUENCES // count, 1)
        outputs: list[RequestOutput] = []
        for start in range(0, len(prompts), at_once):
            some = prompts[start : start + at_once]
            with endpoint_errors(self.url):
                answer = self._client.post(
                    "/completions", cast_to=object, body={**body, "prompt": list(some)}
                )
                outputs += _outputs(some, count, answer)
        return outputs

    def stream(self, prompt: str, sampling_params: SamplingParams) -> Pieces:
        """Complete a prompt, piece by piece."""
        return self._stream("/completions", sampling_params, prompt=prompt)

    def stream_chat(
        self, messages: list[dict[str, Any]], sampling_params: SamplingParams
    ) -> Pieces:
        """Answer a conversation, piece by piece."""
        return self._stream("/chat/completions", sampling_params, messages=messages)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> RemoteLLM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _stream(
        self, path: str, params: SamplingParams, **asked: Any
    ) -> Generator[RequestOutput, None, None]:
        from openai import Stream

        body = {**self._body(params, chat="messages" in asked), **asked, "stream": True}
        finished = False
        with (
            endpoint_errors(self.url),
            self._client.post(
                path, cast_to=object, body=body, stream=True, stream_cls=Stream[object]
            ) as events,
        ):
            for event in events:
                parts = [_completion(choice) for choice in _choices(event)]
                finished = finished or any(part.finish_reason for part in parts)
                yield RequestOutput("", asked.get("prompt"), [], outputs=parts)
        if not finished:
            raise EndpointError(f"the connection to {self.url} ended before the answer did")

    def _body(self, params: SamplingParams, *, chat: bool = False) -> dict[str, Any]:
        """The request's fields: those that were set, under OpenAI's and vLLM's names."""
        body: dict[str, Any] = {"model": self.model}
        if self._gives_token_ids:
            body["return_token_ids"] = True
        if params.max_tokens is None and not chat:
            raise InvalidParamsError(
                "--max-tokens none does not go with --url: endpoints read it as 16; give a number",
                param="max_tokens",
            )
        for name in sorted(params.fields_set()):
            value = getattr(params, name)
            if name in ENGINE_ONLY and value is not None and value is not True:
                raise InvalidParamsError(
                    f"--{name.replace('_', '-')} does not go with --url: {ENGINE_ONLY[name]}",
                    param=name,
                )
            if name not in ENGINE_ONLY and name != "output_kind" and value is not None:
                body[name] = value
        return body


def _models(client: OpenAI, url: str) -> list[dict[str, Any]]:
    with endpoint_errors(url):
        answer = client.get("/models", cast_to=object)
        cards = answer["data"] if isinstance(answer, dict) else []
        if not cards:
            raise EndpointError(f"{url} has no models; is it the address of an OpenAI endpoint?")
        return list(cards)


def _choices(answer: Any) -> list[dict[str, Any]]:
    return list(answer.get("choices") or [])


def _outputs(prompts: Sequence[str], count: int, answer: Any) -> list[RequestOutput]:
    """Outputs in the order of the prompts; choices are numbered through all of them."""
    outputs = [RequestOutput("", prompt, [], finished=True) for prompt in prompts]
    for choice in sorted(_choices(answer), key=lambda choice: int(choice["index"])):
        number, index = divmod(int(choice["index"]), count)
        outputs[number].outputs.append(_completion({**choice, "index": index}))
    return outputs


def _completion(choice: Mapping[str, Any]) -> CompletionOutput:
    delta = choice.get("delta")
    text = choice.get("text") if delta is None else delta.get("content")
    message = None
    if delta is not None:
        message = Message(content=text or None, reasoning=delta.get("reasoning"))
    return CompletionOutput(
        index=choice["index"],
        text=text or "",
        message=message,
        token_ids=list(choice.get("token_ids") or []),
        finish_reason=choice.get("finish_reason"),
        stop_reason=choice.get("stop_reason"),
    )


@contextmanager
def endpoint_errors(url: str) -> Iterator[None]:
    """Turn what the client raises within into errors of quire's that say what to do."""
    from openai import APIError

    try:
        yield
    except QuireError:
        raise
    except (APIError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise translate(error, url) from error


def translate(error: Exception, url: str) -> QuireError:
    """The error of ours for one of the official client's, or one met in reading an answer."""
    from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

    if not isinstance(error, APIError):
        return EndpointError(
            f"{url} answered with what is no OpenAI answer ({type(error).__name__}: {error}); "
            "check the address"
        )

    if isinstance(error, APITimeoutError):
        return EndpointError(f"{url} did not answer in time")
    if isinstance(error, APIConnectionError):
        cause = error.__cause__ or error
        return EndpointError(f"cannot reach {url} ({cause}); is the server running?")
    if not isinstance(error, APIStatusError):  # an event of the stream
        return RequestFailedError(f"generation failed: {error}")
    message = status_message(error.body) or f"HTTP status {error.status_code}"
    if error.status_code in (401, 403):
        return RequestError(
            f"{url} refused the key ({message}): give one by --api-key or {KEY_VARIABLES[0]}"
        )
    if 400 <= error.status_code < 500 and error.status_code not in (408, 429):
        return RequestError(message)
    return EndpointError(f"{url} answered {error.status_code}: {message}")


def status_message(body: Any) -> str | None:
    """The message of an OpenAI error object, or of what stands in its place."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, Mapping) else inner
        return str(message) if message else None
    return body if isinstance(body, str) and body else None
