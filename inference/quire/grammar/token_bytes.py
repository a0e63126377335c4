"""The bytes of each token of a vocabulary, and the tokens that have given bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Sequence


class TokenBytes:
    """What each token writes; the ends of a sequence write nothing.

    Args:
        pieces: bytes of each token, by id.
        silent: ids of the tokens that are no text: ends of a sequence.
    """

    def __init__(self, pieces: Sequence[bytes], silent: Container[int]) -> None:
        self._pieces = [b"" if i in silent else piece for i, piece in enumerate(pieces)]
        ordered = sorted((piece, i) for i, piece in enumerate(self._pieces) if piece)
        self._ids = [i for _, i in ordered]
        self._sorted = [piece for piece, _ in ordered]
        self.longest = max(map(len, self._sorted), default=0)

    def __getitem__(self, token_id: int) -> bytes:
        return self._pieces[token_id]

    def join(self, token_ids: Sequence[int]) -> bytes:
        """What the tokens write together."""
        return b"".join(self._pieces[token_id] for token_id in token_ids)

    def exactly(self, text: bytes) -> list[int]:
        """The tokens that write just this."""
        first = bisect_left(self._sorted, text)
        return self._ids[first : bisect_left(self._sorted, text + b"\0")]

    def beginning_with(self, text: bytes) -> list[int]:
        """The tokens that write this, or this and more."""
        first = bisect_left(self._sorted, text)
        last = first
        while last < len(self._sorted) and self._sorted[last].startswith(text):
            last += 1
        return self._ids[first:last]
