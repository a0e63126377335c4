"""LlamaIndex's contract for LLMs, on the bundled model: in this process, and through its endpoint."""

from __future__ import annotations

from llama_index_contract import LLMContract


class TestVllm(LLMContract):
    """Every test runs both ways: `make` has two parameters."""
