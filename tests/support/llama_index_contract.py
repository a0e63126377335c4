"""The contract of LlamaIndex's function-calling LLMs as a suite: subclass `LLMContract` and give it `make`.

`make(**options)` is a fixture: it makes a greedy LLM on the bundled model, of 48 tokens at the most.
"""

from __future__ import annotations

from llama_index_chats import ChatContract, CompletionContract, SamplingContract
from llama_index_lifecycle import LifecycleContract
from llama_index_objects import ObjectContract
from llama_index_tools import ToolContract


class LLMContract(
    ChatContract,
    CompletionContract,
    SamplingContract,
    ToolContract,
    ObjectContract,
    LifecycleContract,
):
    """All of it."""
