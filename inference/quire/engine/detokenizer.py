"""`Detokenizer`: the text of one sequence as its tokens arrive, and the stop strings in it.

Owns a sequence's text. Text once given out is never revised. Knows nothing of requests and engine.

The whole text of output O after prompt P is `decode(P + O)` without what it has in common with
`decode(P)`, special tokens left out as the parameters say. (One exception, where a one-shot decode
revises what it had said: it replaces a whole run of byte-fallback tokens by U+FFFD if any of it is no
UTF-8; here the run's valid characters stay.)

Tokens cannot be decoded one by one: characters are split between them, and the first token's leading
space is dropped by many decoders. So a window of tokens is decoded, text before it being of no influence:
`context` tokens whose text is known, then those that did not yet end in a whole character. It moves on
whenever one does, so that the work per token is constant. (tokenizers' own DecodeStream does the same; it
is no faster, and its work per token grows without bound on bytes that are no characters.)
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Sequence

from quire.sampling_params import SamplingParams
from quire.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
PROMPT_WINDOW = 8  # prompt tokens before the output: more than a character is ever split into
MAX_PENDING = 8  # tokens that end no character before the window is shortened


class Detokenizer:
    """Text and stop strings of one sequence.

    Args:
        tokenizer: None where there is none; then there is no text.
        prompt_token_ids: what the output follows; only the end of it is looked at.
        params: `detokenize`, `skip_special_tokens`, `spaces_between_special_tokens`, `stop`,
            `include_stop_str_in_output` and `min_tokens` are.

    Attributes:
        stop_string: the stop string that ended the text, once one was found.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
    ) -> None:
        self.stop_string: str | None = None
        self._stream = None
        if tokenizer is not None and params.detokenize:
            self._stream = TokenStream(
                tokenizer,
                prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
            )
        self._stops = params.stop_strings
        self._include_stop = params.include_stop_str_in_output
        self._min_tokens = params.min_tokens
        self._num_tokens = 0
        self._held = ""  # may be the beginning of a stop string
        self._given: list[str] = []  # joined when asked for: adding to one string is quadratic
        self._untaken: list[str] = []

    @property
    def text(self) -> str:
        """All text that may be given out so far; after `finish` all there is."""
        if len(self._given) > 1:
            self._given = ["".join(self._given)]
        return self._given[0] if self._given else ""

    def take_delta(self) -> str:
        """The part of `text` that was not taken before."""
        delta = "".join(self._untaken)
        self._untaken.clear()
        return delta

    def append(self, new_token_ids: Sequence[int], *, ends_with_stop_token: bool = False) -> int:
        """Take tokens in.

        A stop string counts if its last character comes with a token after the first `min_tokens`; of
        several the one that is complete first wins, the longest of those that end together.

        Args:
            ends_with_stop_token: the last token ended the sequence (end of sequence or stop token id): it
                has no text, unless `include_stop_str_in_output`.

        Returns:
            How many of the tokens belong to the output: fewer than all if a stop string ended it sooner.
        """
        silent_last = ends_with_stop_token and not self._include_stop
        for index, token_id in enumerate(new_token_ids):
            if self.stop_string is not None:
                return index
            self._num_tokens += 1
            if self._stream is None or (silent_last and index == len(new_token_ids) - 1):
                continue
            self._take(self._stream.push(token_id))
        return len(new_token_ids)

    def finish(self) -> None:
        """Give out what was held back: half a character (as U+FFFD), or half a stop string."""
        if self._stream is not None and self.stop_string is None:
            self._give(self._held + self._stream.flush())
            self._held = ""

    def _take(self, new_text: str) -> None:
        if not new_text:
            return
        if not self._stops:
            self._give(new_text)
            return
        text = self._held + new_text
        match = None
        if self._num_tokens > self._min_tokens:
            match = first_stop(text, len(self._held), self._stops)
        if match is None:
            end = len(text) - held_back(text, self._stops)
            self._give(text[:end])
            self._held = text[end:]
            return
        start, self.stop_string = match
        end = start + len(self.stop_string) if self._include_stop else start
        self._give(text[:end])
        self._held = ""

    def _give(self, text: str) -> None:
        if text:
            self._given.append(text)
            self._untaken.append(text)


def first_stop(text: str, known: int, stops: Sequence[str]) -> tuple[int, str] | None:
    """Start and string of the stop string that is complete first, among those that end after `known`."""
    best: tuple[int, int, str] | None = None  # end, start, string: the smallest wins
    for stop in stops:
        start = text.find(stop, max(0, known - len(stop) + 1))
        if start >= 0 and (best is None or (start + len(stop), start) < best[:2]):
            best = (start + len(stop), start, stop)
    return None if best is None else best[1:]


def held_back(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that a stop string begins with and goes on after."""
    longest = 0
    for stop in stops:
        start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
        while start >= 0 and not stop.startswith(text[start:]):
            start = text.find(stop[0], start + 1)
        if start >= 0:
            longest = max(longest, len(text) - start)
    return longest


def common_length(a: str, b: str) -> int:
    """Number of characters that two texts begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


class TokenStream:
    """Tokens to text, one at a time; see the module's docstring for what the text is."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int],
        *,
        skip_special_tokens: bool,
        spaces_between_special_tokens: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = tokenizer.vocab_size
        self._spaces = spaces_between_special_tokens
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        # Bytes of split characters; ASCII is whole, and may be a space that the decoder drops.
        self._bytes = {i: byte for i, byte in tokenizer.byte_fallback.items() if byte >= 0x80}
        self._letter = next((i for i, b in tokenizer.byte_fallback.items() if b == ord("a")), 0)
        self._byte_decoder = codecs.getincrementaldecoder("utf-8")("replace")

        self._window: list[int] = []
        self._context = 0  # tokens at the window's start that are whole characters, with known text
        self._known = ""  # the part of the window's text that was given out or is the prompt's
        # What the prompt's text ends with if it ends within a character of byte-fallback tokens: often one
        # U+FFFD, but two where half a surrogate waits for the rest of it.
        self._prompt_end = ""
        self._start_after(prompt_token_ids)

    def _start_after(self, prompt_token_ids: Sequence[int]) -> None:
        kept = (token_id for token_id in reversed(prompt_token_ids) if self._has_text(token_id))
        window: list[int] = []
        for token_id in list(itertools.islice(kept, PROMPT_WINDOW))[::-1]:
            if token_id in self._bytes:
                self._byte_decoder.decode(bytes([self._bytes[token_id]]))
                window = [self._letter]
            else:
                self._byte_decoder.reset()
                window.append(token_id)
        self._set_window(window)
        self._prompt_end = self._byte_decoder.getstate()[0].decode("utf-8", "replace")

    def push(self, token_id: int) -> str:
        """Take a token in; returns the text that is certain now."""
        if not self._has_text(token_id):
            return ""
        if token_id in self._bytes:
            return self._push_byte(self._bytes[token_id])
        return self._close_bytes() + self._push_token(token_id)

    def flush(self) -> str:
        """The rest, at the end: U+FFFD for what is no character."""
        return self._close_bytes() + self._flush_window()

    def _has_text(self, token_id: int) -> bool:
        """False for special tokens that are skipped, and what a model has beyond its tokenizer."""
        return token_id not in self._skipped and token_id < self._vocab_size

    @property
    def _within_character(self) -> bool:
        return bool(self._byte_decoder.getstate()[0])

    def _push_byte(self, byte: int) -> str:
        rest = ""
        if not self._within_character:
            rest = self._flush_window()
            # To the token after them, bytes are text like any other: a letter stands for them.
            self._set_window([self._letter])
        return rest + self._without_prompt(self._byte_decoder.decode(bytes([byte])))

    def _close_bytes(self) -> str:
        return self._without_prompt(self._byte_decoder.decode(b"", final=True))

    def _without_prompt(self, text: str) -> str:
        """Leave out what the prompt's own text ends with."""
        if text and self._prompt_end:
            text = text[common_length(self._prompt_end, text) :]
            self._prompt_end = ""
        return text

    def _push_token(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._window_text()
        certain = text.rstrip(REPLACEMENT)
        new = certain[len(self._known) :]
        self._known += new
        if new and certain == text:
            self._set_window(self._window[self._context :])
        elif len(self._window) - self._context > MAX_PENDING:
            new += self._shorten_window(text)
        return new

    def _shorten_window(self, text: str) -> str:
        """Drop the beginning of a window that grew long because no token ends a character.

        UTF-8 finds its feet within three bytes: the last four tokens alone end in the same text, of
        which no more than the last character can still change.
        """
        open_end = text.endswith(REPLACEMENT)
        new = text[len(self._known) : len(text) - open_end]
        self._window, self._context = self._window[-4:], 0
        text = self._decode(self._window)
        self._known = text[: len(text) - open_end]
        return new

    def _flush_window(self) -> str:
        text = self._window_text()
        new = text[len(self._known) :]
        self._known = text
        self._set_window(self._window[-1:])
        return new

    def _window_text(self) -> str:
        text = self._decode(self._window)
        if not text.startswith(self._known):
            # The prompt ended within a character that is whole only now.
            self._known = text[: common_length(self._known, text)]
        return text

    def _set_window(self, token_ids: list[int]) -> None:
        """Go on after these tokens, if they have text: where they have none, they may still get some."""
        known = self._decode(token_ids)
        if known or not self._window:
            self._window, self._context, self._known = token_ids, len(token_ids), known

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(
            token_ids, skip_special_tokens=False, spaces_between_special_tokens=self._spaces
        )
