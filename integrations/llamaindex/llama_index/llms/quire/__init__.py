"""LlamaIndex's language model on quire, in this process or behind any OpenAI-compatible endpoint."""

from llama_index.llms.quire.base import Vllm

__all__ = ["Vllm"]
