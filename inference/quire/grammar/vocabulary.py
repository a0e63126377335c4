"""A tokenizer as grammars see it: the bytes of each token, and which tokens end a sequence."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quire.grammar.token_bytes import TokenBytes

if TYPE_CHECKING:
    from llguidance import LLTokenizer


class Vocabulary:
    """Tokens of one model, made ready for grammars when the first one needs them.

    Args:
        tokenizer_json: of a fast tokenizer, the text of its `tokenizer.json`.
        vocab_size: width of the masks; not less than any id that the tokenizer makes.
        eos_token_ids: ids that end a sequence; the first one is taken where the end is all that is left.
    """

    def __init__(self, tokenizer_json: str, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        assert eos_token_ids, "a grammar's end is told by a token"
        self.tokenizer_json = tokenizer_json
        self.vocab_size = vocab_size
        self.eos_token_ids = tuple(eos_token_ids)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    @property
    def num_words(self) -> int:
        """32-bit words of a mask."""
        return -(-self.vocab_size // 32)

    @cached_property
    def markers(self) -> dict[str, int]:
        """Text -> id of the tokens that were added to the model's own: ends, roles, `<tool_call>`.

        A grammar's text is never made of them: where one is meant, the grammar names the token.
        """
        return {token["content"]: token["id"] for token in self._added}

    @cached_property
    def plain_markers(self) -> dict[str, int]:
        """Those that belong to the text that callers see."""
        return {token["content"]: token["id"] for token in self._added if not token["special"]}

    @cached_property
    def _added(self) -> list[dict[str, Any]]:
        return list(json.loads(self.tokenizer_json).get("added_tokens") or [])

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """What each token writes."""
        tokenizer = self.load()
        pieces = [tokenizer.decode_bytes([token_id]) for token_id in range(self.vocab_size)]
        return TokenBytes(pieces, self.eos_token_ids)

    def load(self) -> LLTokenizer:
        """The library's form of it; takes up to a second, the first time."""
        with self._lock:
            if self._tokenizer is None:
                from llguidance import LLTokenizer

                self._tokenizer = LLTokenizer(
                    self.tokenizer_json,
                    n_vocab=self.vocab_size,
                    eos_token=list(self.eos_token_ids),
                )
            return self._tokenizer

    def __reduce__(self) -> tuple[object, ...]:
        return Vocabulary, (self.tokenizer_json, self.vocab_size, self.eos_token_ids)
