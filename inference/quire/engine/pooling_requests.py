"""A call for vectors as the engine sees it: one request whose sequences are its texts, one text each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quire.engine.loop import sequence_ids
from quire.engine.output import RequestState
from quire.engine.prompts import PoolingText
from quire.outputs import RequestMetrics
from quire.request import Request
from quire.sampling_params import RequestOutputKind, SamplingParams


def state_of_texts(
    texts: Sequence[PoolingText],
    request_id: str,
    now: float,
    *,
    deadline: float | None,
    show_metrics: bool,
    trace_headers: Mapping[str, str] | None,
) -> RequestState:
    """What stands between the engine and the caller; its prompt is all of the texts' tokens.

    Args:
        now, deadline: seconds on the engine's clock.
    """
    params = SamplingParams(
        n=len(texts), max_tokens=None, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
    )
    return RequestState(
        request_id,
        None,
        [token_id for text in texts for token_id in text.token_ids],
        params,
        None,
        RequestMetrics(arrival_time=now),
        deadline=deadline,
        show_metrics=show_metrics,
        trace_headers=trace_headers,
    )


def requests_of_texts(
    state: RequestState,
    texts: Sequence[PoolingText],
    cache_salt: str | None,
    priority: int,
    *,
    whole: bool,
) -> list[Request]:
    """One `Request` for each text.

    Args:
        cache_salt: in place of the texts' own.
        whole: the model computes a text in one step.
    """
    return [
        Request(
            id=sequence_id,
            prompt_token_ids=text.token_ids,
            params=state.params,
            arrival_time=state.metrics.arrival_time,
            priority=priority,
            cache_salt=text.cache_salt if cache_salt is None else cache_salt,
            pooling=text.pooling,
            segment_start=text.segment_start,
            whole=whole,
        )
        for sequence_id, text in zip(sequence_ids(state.request_id, len(texts)), texts, strict=True)
    ]
