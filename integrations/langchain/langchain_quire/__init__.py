"""LangChain on quire: models in this process, or behind any OpenAI-compatible endpoint.

from langchain_quire import ChatVLLM

chat = ChatVLLM(model="Qwen/Qwen2.5-7B-Instruct")                    # in this process
chat = ChatVLLM(model="qwen", base_url="http://gpu-box:8000/v1")     # remote, nothing else changes
"""

from importlib.util import find_spec

from quire.errors import MissingDependencyError

if find_spec("langchain_core") is None:
    raise MissingDependencyError(
        "langchain_quire needs langchain-core: pip install 'quire[langchain]'"
    )

from langchain_quire.chat_models import ChatVLLM
from langchain_quire.embeddings import VLLMEmbeddings
from langchain_quire.llms import VLLM
from langchain_quire.rerank import VLLMRerank

__all__ = ["VLLM", "ChatVLLM", "VLLMEmbeddings", "VLLMRerank"]
