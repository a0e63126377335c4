"""LangChain classes of quire."""
