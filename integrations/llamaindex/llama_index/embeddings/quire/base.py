"""`VllmEmbedding`: LlamaIndex's embeddings on quire, in this process or behind an endpoint."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from openai.types import CreateEmbeddingResponse

from llama_index.llms.quire.connection import open_connection, sort_options
from quire.api.client import Connection


class VllmEmbedding(BaseEmbedding):
    """Vectors of texts.

        embeddings = VllmEmbedding("BAAI/bge-small-en-v1.5", query_instruction="Represent this sentence: ")

    All texts of a call are one request, and one batch of the engine as far as its step has room.

    Args:
        model_name: folder or hub name, or a name that the endpoint serves; also called model.
        api_key: of the endpoint; kept in the connection alone, like the next two.
        default_headers: sent with each request.
        engine: an engine to run on, which its maker closes.
        options: the fields below; None stands for one that is left out.

    Raises:
        UnknownParamError: an option that does not exist, naming the nearest one.
        openai.APIError: of the calls; the same from an engine in this process.
    """

    model_name: str = Field(default="", description="Default: the endpoint's first")
    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts in one request")
    base_url: str | None = Field(default=None, description="Of an endpoint; also called api_url")
    timeout: float | None = Field(default=None, description="Seconds for each request")
    max_retries: int = Field(default=2, ge=0, description="Of requests to an endpoint")
    query_instruction: str = Field(default="", description="Put before queries")
    text_instruction: str = Field(default="", description="Put before texts")
    query_prompt_name: str | None = Field(
        default=None, description="Which of the model's own prompts goes before queries"
    )
    text_prompt_name: str | None = Field(default=None, description="The same for texts")
    truncate_prompt_tokens: int | None = Field(
        default=None, description="Cut longer texts to so many tokens; -1: to what the model takes"
    )
    dimensions: int | None = Field(default=None, ge=1, description="Of the vectors, if fewer")
    additional_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further request fields"
    )

    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model")
    dtype: str = Field(default="auto", description="Of weights and activations")
    download_dir: str | None = Field(default=None, description="Folder for downloads")
    vllm_kwargs: dict[str, Any] = Field(default_factory=dict, description="Further engine options")

    _connection: Connection = PrivateAttr()

    def __init__(self, model_name: str | None = None, **options: Any) -> None:
        given = {**({} if model_name is None else {"model_name": model_name}), **options}
        fields, unkept = sort_options(type(self), given, {"model": "model_name"})
        super().__init__(**fields)
        self._connection = open_connection(self, self.model_name or None, unkept)

    def __getstate__(self) -> dict[str, Any]:
        """The fields; the connection, which may hold a key, is made anew from them."""
        return {**super().__getstate__(), "__pydantic_private__": None}

    @classmethod
    def class_name(cls) -> str:
        return "VllmEmbedding"

    def load(self) -> VllmEmbedding:
        """Load the model now, or make sure that the endpoint is there, instead of at the first call."""
        self._connection.load()
        return self

    def close(self) -> None:
        """Let go of the model; it is unloaded when nobody else in the process uses it."""
        self._connection.close()

    async def aclose(self) -> None:
        """The same from an event loop, whose sockets to the endpoint it closes."""
        await self._connection.aclose()

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed(self._queries([query]))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed(self._texts([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(self._texts(texts))

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aembed(self._queries([query])))[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aembed(self._texts([text])))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._aembed(self._texts(texts))

    def _embed(self, request: dict[str, Any]) -> list[Embedding]:
        model = self._connection.model
        return _vectors(self._connection.sync.embeddings.create(model=model, **request))

    async def _aembed(self, request: dict[str, Any]) -> list[Embedding]:
        model = await self._connection.amodel()
        create = self._connection.asynchronous.embeddings.create
        return _vectors(await create(model=model, **request))

    def _queries(self, queries: list[str]) -> dict[str, Any]:
        return self._request(self.query_instruction, queries, self.query_prompt_name)

    def _texts(self, texts: list[str]) -> dict[str, Any]:
        return self._request(self.text_instruction, texts, self.text_prompt_name)

    def _request(
        self, instruction: str, texts: list[str], prompt_name: str | None
    ) -> dict[str, Any]:
        fields = {
            "dimensions": self.dimensions,
            "truncate_prompt_tokens": self.truncate_prompt_tokens,
            "prompt_name": prompt_name,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return {
            "input": [instruction + text for text in texts],
            "extra_body": {**given, **self.additional_kwargs},
        }


def _vectors(answer: CreateEmbeddingResponse) -> list[Embedding]:
    """In the order of the texts."""
    return [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
