"""LlamaIndex's embeddings on quire, in this process or behind any OpenAI-compatible endpoint."""

from llama_index.embeddings.quire.base import VllmEmbedding

__all__ = ["VllmEmbedding"]
