"""quire: run large language models in your process or behind an OpenAI-compatible endpoint.

    from quire import LLM, SamplingParams

    llm = LLM()                                          # the bundled model; or LLM(model="...")
    print(llm.generate("The capital of France is")[0].outputs[0].text)

Names are imported when first used, so that `import quire` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quire.api.client import Connection, async_openai_client, connect, openai_client
    from quire.config import AsyncEngineArgs, EngineArgs, EngineConfig
    from quire.engine.async_llm import AsyncLLM
    from quire.engine.engine import Engine
    from quire.engine.llm import LLM
    from quire.engine.prompts import TextPrompt, TokensPrompt
    from quire.errors import QuireError
    from quire.hub import bundled_model
    from quire.memory import MemoryBudget, memory_budget
    from quire.outputs import (
        CompletionOutput,
        EmbeddingOutput,
        EmbeddingRequestOutput,
        FieldConfidence,
        Logprob,
        RankedDocument,
        RefusedValue,
        RequestOutput,
        ScoringOutput,
        ScoringRequestOutput,
    )
    from quire.pooling_params import PoolingParams
    from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
    from quire.structured_outputs import StructuredOutputsParams

__version__ = "0.1.0"

_EXPORTS = {
    "LLM": "quire.engine.llm",
    "AsyncLLM": "quire.engine.async_llm",
    "Engine": "quire.engine.engine",
    "EngineConfig": "quire.config",
    "EngineArgs": "quire.config",
    "AsyncEngineArgs": "quire.config",
    "TextPrompt": "quire.engine.prompts",
    "TokensPrompt": "quire.engine.prompts",
    "PoolingParams": "quire.pooling_params",
    "SamplingParams": "quire.sampling_params",
    "BeamSearchParams": "quire.sampling_params",
    "RequestOutputKind": "quire.sampling_params",
    "StructuredOutputsParams": "quire.structured_outputs",
    "RequestOutput": "quire.outputs",
    "CompletionOutput": "quire.outputs",
    "FieldConfidence": "quire.outputs",
    "RefusedValue": "quire.outputs",
    "Logprob": "quire.outputs",
    "EmbeddingRequestOutput": "quire.outputs",
    "EmbeddingOutput": "quire.outputs",
    "ScoringRequestOutput": "quire.outputs",
    "ScoringOutput": "quire.outputs",
    "RankedDocument": "quire.outputs",
    "QuireError": "quire.errors",
    "bundled_model": "quire.hub",
    "memory_budget": "quire.memory",
    "MemoryBudget": "quire.memory",
    "Connection": "quire.api.client",
    "connect": "quire.api.client",
    "openai_client": "quire.api.client",
    "async_openai_client": "quire.api.client",
}

__all__ = [
    "LLM",
    "AsyncEngineArgs",
    "AsyncLLM",
    "BeamSearchParams",
    "CompletionOutput",
    "Connection",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "Engine",
    "EngineArgs",
    "EngineConfig",
    "FieldConfidence",
    "Logprob",
    "MemoryBudget",
    "PoolingParams",
    "QuireError",
    "RankedDocument",
    "RefusedValue",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "ScoringOutput",
    "ScoringRequestOutput",
    "StructuredOutputsParams",
    "TextPrompt",
    "TokensPrompt",
    "async_openai_client",
    "bundled_model",
    "connect",
    "memory_budget",
    "openai_client",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'quire' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
