"""The grammars of an engine: compiled on threads of their own, over the vocabulary of its model."""

from __future__ import annotations

from collections.abc import Set
from concurrent.futures import Future

from quire.errors import InvalidParamsError
from quire.grammar import CompiledGrammar, GrammarCompiler, Vocabulary
from quire.structured_outputs import StructuredOutputsParams
from quire.tokenizer import Tokenizer


class Grammars:
    """Grammars for one tokenizer.

    Args:
        tokenizer: None: nothing can be compiled.
        vocab_size: width of the logits.
        eos_token_ids: ids that end a sequence.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, vocab_size: int, eos_token_ids: Set[int]
    ) -> None:
        self._why_not = _why_not(tokenizer, vocab_size, eos_token_ids)
        self._compiler: GrammarCompiler | None = None
        if tokenizer is not None and not self._why_not:
            own = tokenizer.eos_token_id  # the one that ends a turn of a chat comes first
            ids = sorted(eos_token_ids, key=lambda token_id: (token_id != own, token_id))
            self._compiler = GrammarCompiler(Vocabulary(tokenizer.to_json(), vocab_size, ids))

    @property
    def available(self) -> bool:
        """Whether anything can be compiled at all."""
        return self._compiler is not None

    def compile(self, params: StructuredOutputsParams) -> Future[CompiledGrammar]:
        """See `GrammarCompiler.compile`.

        Raises:
            InvalidParamsError: also if the model's tokenizer does not allow grammars.
        """
        if self._compiler is None:
            raise InvalidParamsError(
                f"structured_outputs is not available: {self._why_not}", param="structured_outputs"
            )
        return self._compiler.compile(params)

    def close(self) -> None:
        """End the threads."""
        if self._compiler is not None:
            self._compiler.close()


def _why_not(tokenizer: Tokenizer | None, vocab_size: int, eos_token_ids: Set[int]) -> str:
    if tokenizer is None:
        return "the engine has skip_tokenizer_init=True"
    if not tokenizer.to_json():
        return "it needs a fast tokenizer (tokenizer.json), and the model has none"
    if tokenizer.vocab_size > vocab_size:
        return f"the tokenizer has {tokenizer.vocab_size} tokens, and the model only {vocab_size}"
    if not eos_token_ids:
        return "the model has no end-of-sequence token to tell where a structure is complete"
    return ""
