"""`VLLMRerank`: documents ordered by how well they fit a query, by a model here or behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Self

from langchain_quire import options
from quire.api.client import Connection
from quire.outputs import RankedDocument


class VLLMRerank(BaseDocumentCompressor):
    """A reranker that quire runs in this process, or that an endpoint serves.

        rerank = VLLMRerank(model="BAAI/bge-reranker-v2-m3", top_n=3)
        rerank.compress_documents(documents, "What is a quire?")

    A cross-encoder reads query and document together; of an embedding model, scores are the cosines. All
    documents go to the engine together. Construction is cheap; the model loads at the first call.

    Args:
        top_n: how many documents to keep; None: all.
        truncate_prompt_tokens: cut longer pairs to so many tokens, -1: to what the model takes; default:
            refuse them.
        score_key: of the metadata that holds a document's score.
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

    top_n: int | None = Field(default=3, ge=1)
    truncate_prompt_tokens: int | None = None
    score_key: str = "relevance_score"

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )
    _connection: Connection = PrivateAttr()
    _sorted = model_validator(mode="before")(options.sorted_options)

    def model_post_init(self, context: Any, /) -> None:
        """Make the connection; nothing is loaded."""
        self._connection = options.connection_of(self, self.engine_kwargs)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Copies of the `top_n` documents that fit best, best first, their scores in the metadata."""
        if not documents:
            return []
        texts = [one.page_content for one in documents]
        ranked = self._connection.rerank(query, texts, top_n=self.top_n, **self._fields())
        return self._scored(documents, ranked)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The same without holding up the event loop."""
        if not documents:
            return []
        texts = [one.page_content for one in documents]
        ranked = await self._connection.arerank(query, texts, top_n=self.top_n, **self._fields())
        return self._scored(documents, ranked)

    def _fields(self) -> dict[str, Any]:
        cut = self.truncate_prompt_tokens
        return {} if cut is None else {"truncate_prompt_tokens": cut}

    def _scored(
        self, documents: Sequence[Document], ranked: Sequence[RankedDocument]
    ) -> list[Document]:
        chosen = [(documents[one.index], one.relevance_score) for one in ranked]
        return [
            document.model_copy(update={"metadata": {**document.metadata, self.score_key: score}})
            for document, score in chosen
        ]

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
