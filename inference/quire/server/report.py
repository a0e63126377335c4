"""Log lines about the engine: one for each request that ends, one for each interval with work in it."""

from __future__ import annotations

import asyncio
import logging

from quire.engine.engine import Engine
from quire.engine.records import RequestRecord
from quire.server.logs import log_figures

logger = logging.getLogger(__name__)


class RequestLog:
    """A listener of an engine that logs a line for each request."""

    def on_finish(self, record: RequestRecord) -> None:
        """Log one line; called on the listeners' thread."""
        metrics = record.metrics
        generated = sum(record.num_generated_tokens)
        decode = metrics.decode_time
        log_figures(
            logger,
            "request",
            {
                "id": record.request_id,
                "finish": ",".join(sorted(set(record.finish_reasons))),
                "prompt_tokens": record.num_prompt_tokens,
                "cached_tokens": record.num_cached_tokens,
                "generated_tokens": generated,
                "first_token_seconds": metrics.time_to_first_token,
                "total_seconds": metrics.total_time,
                "tokens_per_second": (generated - 1) / decode if decode and generated > 1 else None,
                "error": record.error,
            },
        )


async def report_load(engine: Engine, seconds: float) -> None:
    """Log the load every `seconds`, as long as there is some, and once when it has ended."""
    metrics = engine.metrics
    was_busy = False
    hits, queries = metrics.hit_tokens, metrics.queried_tokens
    while True:
        await asyncio.sleep(seconds)
        load = engine.load()
        is_busy = bool(load.requests) or load.generation_tokens_per_second > 0
        if is_busy or was_busy:
            looked_up = metrics.queried_tokens - queries
            share = (metrics.hit_tokens - hits) / looked_up if looked_up else None
            log_figures(
                logger,
                "load",
                {
                    "running": load.num_running,
                    "waiting": load.num_waiting,
                    "kv_cache_usage": load.kv_cache_usage,
                    "prefix_cache_hits": share,
                    "prompt_tokens_per_second": load.prompt_tokens_per_second,
                    "generation_tokens_per_second": load.generation_tokens_per_second,
                },
            )
        was_busy = is_busy
        hits, queries = metrics.hit_tokens, metrics.queried_tokens
