"""/v1/embeddings, /v1/rerank and /v1/score: texts in, vectors or scores out."""

from __future__ import annotations

import base64
import time
from array import array
from collections.abc import Sequence
from typing import Any

from quire.api.backend import Backend
from quire.api.calls import Call, Reply
from quire.api.protocol.pooling import (
    EmbeddingRequest,
    PoolingFields,
    RerankRequest,
    ScoreRequest,
)
from quire.engine.pooling import Scoring, embedding_texts, ranked, scoring
from quire.engine.prompts import PoolingText
from quire.errors import InvalidParamsError
from quire.pooling_params import PoolingParams


async def embeddings(backend: Backend, request: EmbeddingRequest, call: Call) -> Reply:
    """A vector for each text.

    Raises:
        UnsupportedTaskError: the model makes no embeddings.
        RequestError: a text or a field cannot be served; nothing is run then.
        QueueFullError, EngineDrainingError, EngineDeadError, RequestFailedError: it could be, but is not.
    """
    model = backend.model_name(request.model)
    params = _params(request, request.dimensions)
    size = len(request.input) if isinstance(request.input, str) else sum(map(_size, request.input))
    texts = await backend.do(
        lambda: embedding_texts(
            backend.engine,
            request.input,
            params,
            prompt_name=request.prompt_name,
            prompt=request.prompt,
            field="input",
        ),
        size,
    )
    answer_id = backend.answer_id("embd", request, call)
    vectors = await backend.vectors(answer_id, texts, request, call)
    encode = _base64 if request.encoding_format == "base64" else array.tolist
    data = await backend.do(
        lambda: [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(vectors)
        ],
        sum(map(len, vectors)),
    )
    return Reply(_list(answer_id, model, data, texts))


async def rerank(backend: Backend, request: RerankRequest, call: Call) -> Reply:
    """The documents that fit a query best, best first; raises as `embeddings`."""
    model = backend.model_name(request.model)
    documents = request.texts
    answer_id = backend.answer_id("rerank", request, call)
    pairs, scores = await _scores(
        backend, request, call, answer_id, request.query, documents, ("query", "documents")
    )
    results: list[dict[str, Any]] = []
    for place in ranked(scores, request.top_n or None):
        result: dict[str, Any] = {"index": place, "relevance_score": scores[place]}
        if request.return_documents is not False:
            result["document"] = {"text": documents[place]}
        results.append(result)
    return Reply(
        {"id": answer_id, "model": model, "results": results, "usage": _usage(pairs.texts)}
    )


async def score(backend: Backend, request: ScoreRequest, call: Call) -> Reply:
    """A score for each pair of texts; raises as `embeddings`."""
    model = backend.model_name(request.model)
    answer_id = backend.answer_id("score", request, call)
    pairs, scores = await _scores(
        backend, request, call, answer_id, request.text_1, request.text_2, ("text_1", "text_2")
    )
    data = [
        {"object": "score", "index": index, "score": value} for index, value in enumerate(scores)
    ]
    return Reply(_list(answer_id, model, data, pairs.texts))


async def _scores(
    backend: Backend,
    request: PoolingFields,
    call: Call,
    answer_id: str,
    queries: str | list[str],
    documents: str | list[str],
    fields: tuple[str, str],
) -> tuple[Scoring, list[float]]:
    params = _params(request)
    pairs = await backend.do(
        lambda: scoring(backend.engine, queries, documents, params, fields=fields),
        sum(map(_size, (queries, documents))),
    )
    vectors = await backend.vectors(answer_id, pairs.texts, request, call)
    return pairs, await backend.do(lambda: pairs.scores(vectors), sum(map(len, vectors)))


def _params(request: PoolingFields, dimensions: int | None = None) -> PoolingParams:
    if request.truncate_prompt_tokens == 0:
        raise InvalidParamsError(
            "truncate_prompt_tokens must be -1 (what the model takes) or above 0",
            param="truncate_prompt_tokens",
        )
    return PoolingParams(
        dimensions=dimensions,
        use_activation=request.use_activation,
        truncate_prompt_tokens=request.truncate_prompt_tokens,
    )


def _size(item: str | int | Sequence[str | int]) -> int:
    """About how many characters or ids there are to work on."""
    if isinstance(item, list) and item and isinstance(item[0], str):
        return sum(map(_size, item))
    return 1 if isinstance(item, int) else len(item)


def _base64(vector: array[float]) -> str:
    return base64.b64encode(vector.tobytes()).decode()


def _list(
    answer_id: str, model: str, data: list[dict[str, Any]], texts: Sequence[PoolingText]
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": _usage(texts),
    }


def _usage(texts: Sequence[PoolingText]) -> dict[str, int]:
    """A text counts once, in however many pairs it is."""
    tokens = sum(len(text.token_ids) for text in texts)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
