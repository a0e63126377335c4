"""Calls for embeddings, scores and rankings, waited for in a thread or on an event loop; `LLM` and `AsyncLLM`
are made of them. What they do with texts is `pooling`'s.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from quire.engine.engine import Engine
from quire.engine.output import RequestStream
from quire.engine.pooling import Scoring, ranked
from quire.engine.prompts import PoolingText
from quire.errors import RequestAbortedError, RequestFailedError, RequestTimeoutError
from quire.outputs import (
    EmbeddingOutput,
    EmbeddingRequestOutput,
    RankedDocument,
    RequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)

GROUP = 256  # texts of one call that come back together, for its progress bar

Pooled = tuple[str, "array[float]"]  # id of the engine's request; vector of a text


def pool(
    engine: Engine,
    texts: Sequence[PoolingText],
    use_tqdm: bool | Callable[..., tqdm[Any]],
    priority: int,
) -> list[Pooled]:
    """Run texts, all submitted at once, and wait; raises as `vectors_of`."""
    groups = [texts[start : start + GROUP] for start in range(0, len(texts), GROUP)]
    streams: list[RequestStream] = []
    results: list[Pooled] = []
    make = use_tqdm if callable(use_tqdm) else tqdm
    hidden = not use_tqdm or not sys.stderr.isatty()
    try:
        for group in groups:
            streams.append(engine.submit_pooling(group, priority=priority))
        with make(
            total=len(texts), desc="Processed texts", dynamic_ncols=True, disable=hidden
        ) as bar:
            for stream in streams:
                vectors = vectors_of(next(stream))
                results += [(stream.request_id, vector) for vector in vectors]
                bar.update(len(vectors))
    finally:  # after an error or Ctrl-C, what still runs is of no use to anybody
        for stream in streams:
            stream.close()
    return results


async def pool_async(
    engine: Engine, texts: Sequence[PoolingText], request_id: str | None, priority: int
) -> list[Pooled]:
    """The same for an event loop, as one request."""
    stream = engine.submit_pooling(texts, request_id=request_id, priority=priority)
    try:
        return [(stream.request_id, vector) for vector in vectors_of(await anext(stream))]
    finally:  # cancelled or finished
        stream.close()


def vectors_of(output: RequestOutput) -> list[array[float]]:
    """What `Engine.submit_pooling` asked for, in the order of its texts.

    Raises:
        RequestFailedError: the model failed on a text.
        RequestTimeoutError, RequestAbortedError: it ended before all were computed.
    """
    vectors = []
    for number, one in enumerate(output.outputs):
        if one.finish_reason == "error":
            raise RequestFailedError(f"text {number}: {one.error or 'the model failed on it'}")
        if one.finish_reason == "timeout":
            raise RequestTimeoutError(
                "the request's time was over before all of its texts were computed"
            )
        if one.pooled is None:
            raise RequestAbortedError("the request was aborted")
        vectors.append(one.pooled)
    return vectors


def embedding_outputs(
    texts: Sequence[PoolingText], pooled: Sequence[Pooled]
) -> list[EmbeddingRequestOutput]:
    """Embeddings as faces give them out."""
    return [
        EmbeddingRequestOutput(request_id, EmbeddingOutput(vector.tolist()), text.token_ids)
        for text, (request_id, vector) in zip(texts, pooled, strict=True)
    ]


def scoring_outputs(pairs: Scoring, pooled: Sequence[Pooled]) -> list[ScoringRequestOutput]:
    """Scores as faces give them out."""
    scores = pairs.scores([vector for _, vector in pooled])
    return [
        ScoringRequestOutput(pooled[0][0], ScoringOutput(score), token_ids)
        for score, token_ids in zip(scores, pairs.token_ids(), strict=True)
    ]


def ranked_documents(
    documents: Sequence[str], outputs: Sequence[ScoringRequestOutput], top_n: int | None
) -> list[RankedDocument]:
    """The documents with their scores, best first."""
    scores = [output.outputs.score for output in outputs]
    return [
        RankedDocument(place, documents[place], scores[place]) for place in ranked(scores, top_n)
    ]
