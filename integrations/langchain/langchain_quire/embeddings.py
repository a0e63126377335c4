"""`VLLMEmbeddings`: vectors of texts, by a model in this process or behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.embeddings import Embeddings
from openai.types import CreateEmbeddingResponse
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Self

from langchain_quire import options
from quire.api.client import Connection


class VLLMEmbeddings(BaseModel, Embeddings):
    """Embeddings by a model that quire runs in this process, or that an endpoint serves.

        embeddings = VLLMEmbeddings(model="sentence-transformers/all-MiniLM-L6-v2")
        embeddings = VLLMEmbeddings(model="minilm", base_url="http://gpu-box:8000/v1")
        embeddings.embed_query("What is a quire?")

    All texts of a call go to the engine together. Texts are sent as text, never as another model's tokens.
    Construction is cheap; the model loads at the first call, or with `load`.

    Args:
        dimensions: keep only the first so many numbers (of Matryoshka models).
        normalize: whether vectors have unit length; default: as the model has it.
        truncate_prompt_tokens: cut longer texts to so many tokens, -1: to what the model takes; default:
            refuse them.
        query_prompt, document_prompt: instructions in front of queries and documents.
        query_prompt_name, document_prompt_name: which of the model's own prompts goes there instead.
        chunk_size: texts in one request.
        model, base_url, api_key, engine, timeout, max_retries, default_headers, engine_kwargs:
            as in `ChatVLLM`.

    Raises:
        pydantic.ValidationError: an option that does not exist, with the nearest one that does.
        openai.APIError: (calls) whatever a server refuses or fails at, in process as well.
    """

    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    engine: Any = Field(default=None, exclude=True)
    timeout: float | None = None
    max_retries: int = 2
    default_headers: dict[str, str] | None = None
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)

    dimensions: int | None = None
    normalize: bool | None = None
    truncate_prompt_tokens: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    chunk_size: int = Field(default=1024, ge=1)

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )
    _connection: Connection = PrivateAttr()
    _sorted = model_validator(mode="before")(options.sorted_options)

    def model_post_init(self, context: Any, /) -> None:
        """Make the connection; nothing is loaded."""
        self._connection = options.connection_of(self, self.engine_kwargs)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each of the texts."""
        return self._embed(texts, self._fields(self.document_prompt, self.document_prompt_name))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._embed([text], self._fields(self.query_prompt, self.query_prompt_name))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each of the texts, without holding up the event loop."""
        fields = self._fields(self.document_prompt, self.document_prompt_name)
        return await self._aembed(texts, fields)

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a query, without holding up the event loop."""
        fields = self._fields(self.query_prompt, self.query_prompt_name)
        return (await self._aembed([text], fields))[0]

    def _embed(self, texts: list[str], fields: dict[str, Any]) -> list[list[float]]:
        model, create = self._connection.model, self._connection.sync.embeddings.create
        vectors: list[list[float]] = []
        for chunk in self._chunks(texts):
            vectors += _vectors(create(model=model, input=chunk, extra_body=fields))
        return vectors

    async def _aembed(self, texts: list[str], fields: dict[str, Any]) -> list[list[float]]:
        model = await self._connection.amodel()
        create = self._connection.asynchronous.embeddings.create
        answers = await asyncio.gather(
            *(create(model=model, input=chunk, extra_body=fields) for chunk in self._chunks(texts))
        )
        return [vector for answer in answers for vector in _vectors(answer)]

    def _chunks(self, texts: list[str]) -> list[list[str]]:
        size = self.chunk_size
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def _fields(self, prompt: str | None, prompt_name: str | None) -> dict[str, Any]:
        fields = {
            "dimensions": self.dimensions,
            "use_activation": self.normalize,
            "truncate_prompt_tokens": self.truncate_prompt_tokens,
            "prompt": prompt,
            "prompt_name": prompt_name,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def load(self) -> Self:
        """Load the model now, or see that the endpoint has it."""
        self._connection.load()
        return self

    def close(self) -> None:
        """Let go of the engine or the sockets; others that use the same engine go on."""
        self._connection.close()

    async def aclose(self) -> None:
        """The same without holding up the event loop."""
        await self._connection.aclose()

    def __getstate__(self) -> dict[Any, Any]:
        return options.without_secrets(super().__getstate__())

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        options.restore(self)


def _vectors(answer: CreateEmbeddingResponse) -> list[list[float]]:
    return [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
