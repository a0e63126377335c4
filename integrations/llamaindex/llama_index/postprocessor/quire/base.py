"""`VllmRerank`: reorders retrieved nodes by a cross-encoder on quire, here or behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from llama_index.llms.quire.connection import open_connection, sort_options
from quire.api.client import Connection
from quire.outputs import RankedDocument

dispatcher = get_dispatcher(__name__)


class VllmRerank(BaseNodePostprocessor):
    """The nodes that answer a query best, best first.

        rerank = VllmRerank("BAAI/bge-reranker-base", top_n=3)
        index.as_query_engine(similarity_top_k=20, node_postprocessors=[rerank])

    An embedding model scores too, by cosine.

    Args:
        model: folder or hub name, or a name that the endpoint serves.
        api_key: of the endpoint; kept in the connection alone, like the next two.
        default_headers: sent with each request.
        engine: an engine to run on, which its maker closes.
        options: the fields below; None stands for one that is left out.

    Raises:
        UnknownParamError: an option that does not exist, naming the nearest one.
        ValueError: nodes without a query.
        openai.APIError: of the calls; the same from an engine in this process.
    """

    model: str | None = Field(default=None, description="Default: the endpoint's first")
    top_n: int = Field(default=2, ge=1, description="Nodes to keep")
    keep_retrieval_score: bool = Field(
        default=False, description="Keep the score of the retrieval as metadata retrieval_score"
    )
    truncate_prompt_tokens: int | None = Field(
        default=-1, description="Cut longer pairs to so many tokens; -1: to what the model takes"
    )
    base_url: str | None = Field(default=None, description="Of an endpoint; also called api_url")
    timeout: float | None = Field(default=None, description="Seconds for each request")
    max_retries: int = Field(default=2, ge=0, description="Of requests to an endpoint")
    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model")
    dtype: str = Field(default="auto", description="Of weights and activations")
    download_dir: str | None = Field(default=None, description="Folder for downloads")
    vllm_kwargs: dict[str, Any] = Field(default_factory=dict, description="Further engine options")

    _connection: Connection = PrivateAttr()

    def __init__(self, model: str | None = None, **options: Any) -> None:
        fields, unkept = sort_options(type(self), {"model": model, **options}, {})
        super().__init__(**fields)
        self._connection = open_connection(self, self.model, unkept)

    def __getstate__(self) -> dict[str, Any]:
        """The fields; the connection, which may hold a key, is made anew from them."""
        return {**super().__getstate__(), "__pydantic_private__": None}

    @classmethod
    def class_name(cls) -> str:
        return "VllmRerank"

    def load(self) -> VllmRerank:
        """Load the model now, or make sure that the endpoint is there, instead of at the first call."""
        self._connection.load()
        return self

    def close(self) -> None:
        """Let go of the model; it is unloaded when nobody else in the process uses it."""
        self._connection.close()

    async def aclose(self) -> None:
        """The same from an event loop, whose sockets to the endpoint it closes."""
        await self._connection.aclose()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        with self._reranking(nodes, query_bundle) as (query, found):
            ranked = self._connection.rerank(query, _texts(nodes), **self._fields())
            found += self._scored(nodes, ranked)
        return found

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        with self._reranking(nodes, query_bundle) as (query, found):
            ranked = await self._connection.arerank(query, _texts(nodes), **self._fields())
            found += self._scored(nodes, ranked)
        return found

    def _fields(self) -> dict[str, Any]:
        return {"top_n": self.top_n, "truncate_prompt_tokens": self.truncate_prompt_tokens}

    def _scored(
        self, nodes: Sequence[NodeWithScore], ranked: Sequence[RankedDocument]
    ) -> list[NodeWithScore]:
        found = []
        for one in ranked[: self.top_n]:
            node = nodes[one.index]
            if self.keep_retrieval_score:
                node.node.metadata["retrieval_score"] = node.score
            found.append(NodeWithScore(node=node.node, score=one.relevance_score))
        return found

    @contextmanager
    def _reranking(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[tuple[str, list[NodeWithScore]]]:
        """Tell listeners of it; gives the query, and a list for what is found."""
        if query_bundle is None:
            raise ValueError("reranking needs the query: pass query_str or query_bundle")
        found: list[NodeWithScore] = []
        name = self.model or ""
        dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name)
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield query_bundle.query_str, found
            event.on_end(payload={EventPayload.NODES: found})
        dispatcher.event(ReRankEndEvent(nodes=found))


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
