"""Token counts of an answer, in the shapes of completions and of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.outputs import RequestOutput


class Usage:
    """Counts the tokens of one call while its outputs come.

    Args:
        prompt_tokens: of all prompts; a prompt counts once, however many choices it has.
    """

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self._cached: dict[int, int] = {}  # by prompt

    @classmethod
    def of(cls, prompt_tokens: int, outputs: Sequence[RequestOutput]) -> Usage:
        """The usage of whole answers, one for each prompt."""
        usage = cls(prompt_tokens)
        for index, output in enumerate(outputs):
            usage.add(index, output)
        return usage

    def add(self, index: int, output: RequestOutput) -> None:
        """Count an output for prompt `index` that holds only what is new."""
        self._cached[index] = output.num_cached_tokens
        for one in output.outputs:
            self.completion_tokens += len(one.token_ids)
            if one.message is not None:
                self.reasoning_tokens += one.message.num_reasoning_tokens

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens whose KV cache was found."""
        return sum(self._cached.values())

    def for_completions(self) -> dict[str, Any]:
        """`usage` of completions and chat completions."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }

    def for_responses(self) -> dict[str, Any]:
        """`usage` of responses; nothing is ever charged for writing the cache."""
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
