"""`Vllm`: LlamaIndex's language model on quire, in this process or behind any OpenAI-compatible endpoint."""
