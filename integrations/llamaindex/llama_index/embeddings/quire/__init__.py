"""`VllmEmbedding`: LlamaIndex's embeddings on quire."""
