"""How batches reach the engine: all inputs at once.

LangChain runs a synchronous batch on as many threads as there are cores, so that an engine that can run a
hundred sequences together would see six. Threads only wait here; the engine schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

MAX_THREADS = (
    256  # of one batch; inputs beyond wait for a thread, as they would wait in the engine's queue
)


def at_once(config: RunnableConfig | Sequence[RunnableConfig] | None, count: int) -> Any:
    """A batch's config, with a thread for each of `count` inputs where it states no `max_concurrency`."""
    limit = max(1, min(count, MAX_THREADS))
    if config is None:
        return {"max_concurrency": limit}
    if isinstance(config, Sequence):
        return [_limited(one, limit) for one in config]
    return _limited(config, limit)


def _limited(config: RunnableConfig, limit: int) -> RunnableConfig:
    return config if config.get("max_concurrency") else {**config, "max_concurrency": limit}
