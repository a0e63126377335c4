"""A request of LlamaIndex's, ready to be sent in any of four ways: whole or streamed, waiting or awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from llama_index.llms.quire.responses import (
    ChatStream,
    CompletionStream,
    chat_response,
    completion_response,
)
from llama_index.llms.quire.structured import shape_answer
from quire.api.client import Connection

Response = ChatResponse | CompletionResponse
_STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Call:
    """One request.

    Args:
        chat: whether it goes to chat completions; else to completions.
        content: the conversation in OpenAI's shape, or the prompt.
        fields: of the body, besides.
        options: how the client sends it, such as `timeout`.
    """

    chat: bool
    content: Any
    fields: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, chat: bool, content: Any, own: Mapping[str, Any], said: Mapping[str, Any]) -> Call:
        """A request with the fields of the LLM and, before these, what a call says; None says nothing.

        Beside the endpoint's fields a call may say `timeout`, `max_new_tokens`, a pydantic class as
        `response_format`, and `include_confidence`.
        """
        heard = {name: value for name, value in said.items() if value is not None}
        if "max_new_tokens" in heard:
            heard["max_tokens"] = heard.pop("max_new_tokens")
        fields = {name: value for name, value in own.items() if value is not None} | heard
        if "max_completion_tokens" in heard:
            fields.pop("max_tokens", None)
        options = {"timeout": fields.pop("timeout")} if "timeout" in fields else {}
        shape_answer(fields, chat=chat)
        top = fields.get("logprobs")
        if chat and isinstance(top, int) and not isinstance(top, bool):
            fields |= {"logprobs": True, "top_logprobs": top}
        return cls(chat, content, fields, options)

    def ask(self, connection: Connection) -> Response:
        """Send it and wait for the whole answer."""
        return self._read(self._of(connection.sync).create(**self._arguments(connection.model)))

    async def aask(self, connection: Connection) -> Response:
        """The same, awaited."""
        arguments = self._arguments(await connection.amodel())
        return self._read(await self._of(connection.asynchronous).create(**arguments))

    def stream(self, connection: Connection) -> Generator[Response, None, None]:
        """Send it and give the answer as it grows; closing the generator aborts the request."""
        answer = ChatStream() if self.chat else CompletionStream()
        arguments = self._arguments(connection.model) | _STREAM
        with self._of(connection.sync).create(**arguments) as chunks:
            for chunk in chunks:
                yield answer.add(chunk)

    async def astream(self, connection: Connection) -> AsyncGenerator[Response, None]:
        """The same, awaited."""
        answer = ChatStream() if self.chat else CompletionStream()
        arguments = self._arguments(await connection.amodel()) | _STREAM
        async with await self._of(connection.asynchronous).create(**arguments) as chunks:
            async for chunk in chunks:
                yield answer.add(chunk)

    def _of(self, client: Any) -> Any:
        return client.chat.completions if self.chat else client.completions

    def _arguments(self, model: str) -> dict[str, Any]:
        name = "messages" if self.chat else "prompt"
        return {
            "model": model,
            name: self.content,
            "extra_body": self.fields,  # OpenAI's own fields too: the body is one
            **self.options,
        }

    def _read(self, answer: Any) -> Response:
        return chat_response(answer) if self.chat else completion_response(answer)
