"""Calls of quire's and vLLM's that openai's clients have no method for: what is sent, and read of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quire.errors import RequestError
from quire.outputs import RankedDocument

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FurtherCall(Generic[T]):
    """A POST.

    Args:
        path: from the root of the server.
        body: without the model's name.
        read: the result in the answer's JSON.
    """

    path: str
    body: dict[str, Any]
    read: Callable[[Any], T]


def tokenize_call(
    text: str | None,
    messages: Sequence[Mapping[str, Any]] | None,
    tools: Sequence[Mapping[str, Any]] | None,
    add_special_tokens: bool | None,
) -> FurtherCall[list[int]]:
    """Token ids of a text or a conversation; raises RequestError unless it is one of the two."""
    if (text is None) == (messages is None):
        raise RequestError("tokenize needs text or messages, one of them", param="text")
    body = {
        "prompt": text,
        "messages": None if messages is None else list(messages),
        "tools": None if tools is None else list(tools),
        "add_special_tokens": add_special_tokens,
    }
    return FurtherCall("/tokenize", _given(body), lambda answer: list(answer["tokens"]))


def rerank_call(
    query: str, documents: Sequence[str], top_n: int | None, fields: Mapping[str, Any]
) -> FurtherCall[list[RankedDocument]]:
    """Documents by how well they answer a query; raises RequestError for one text in their place."""
    if isinstance(documents, str):
        raise RequestError("documents must be a list of texts, not one text", param="documents")
    documents = list(documents)
    body = {"query": query, "documents": documents, "top_n": top_n, **fields}
    return FurtherCall("/v1/rerank", _given(body), lambda answer: _ranked(answer, documents))


def _ranked(answer: Any, documents: Sequence[str]) -> list[RankedDocument]:
    return [
        RankedDocument(one["index"], documents[one["index"]], one["relevance_score"])
        for one in answer["results"]
    ]


def score_call(
    text_1: str | Sequence[str], text_2: str | Sequence[str], fields: Mapping[str, Any]
) -> FurtherCall[list[float]]:
    """How well texts fit together."""
    one, other = (text if isinstance(text, str) else list(text) for text in (text_1, text_2))
    body = {"text_1": one, "text_2": other, **fields}
    return FurtherCall(
        "/v1/score", _given(body), lambda answer: [one["score"] for one in answer["data"]]
    )


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
