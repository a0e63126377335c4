"""Reranking of LlamaIndex's nodes on quire, in this process or behind an endpoint with /v1/rerank."""

from llama_index.postprocessor.quire.base import VllmRerank

__all__ = ["VllmRerank"]
