"""What tokens are called in logprobs: their text, and the bytes that they add to the answer's.

A token may be a part of a character. Its bytes are told then, so that the bytes of an answer's tokens
make up its text, and it is named `bytes:\\xe2\\x82` as OpenAI does.
"""

from __future__ import annotations

from typing import NamedTuple

from quire.tokenizer import Tokenizer


class TokenName(NamedTuple):
    """A token's name, and its bytes where they are known."""

    text: str
    bytes: bytes | None


class TokenNames:
    """Names of a model's tokens, each worked out once.

    Args:
        tokenizer: None where there is none; then tokens are named by their ids.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, TokenName] = {}  # at most the vocabulary
        self._byte_letters = _byte_letters()

    def __call__(self, token_id: int, *, as_id: bool = False) -> TokenName:
        """The name of a token.

        Args:
            as_id: name it `token_id:123`.
        """
        name = self._known.get(token_id)
        if name is None:
            name = self._known[token_id] = self._name(token_id)
        return TokenName(_id_name(token_id), name.bytes) if as_id else name

    def _name(self, token_id: int) -> TokenName:
        if self._tokenizer is None:
            return TokenName(_id_name(token_id), None)
        text = self._tokenizer.id_to_text(token_id)
        token = self._tokenizer.hf.convert_ids_to_tokens(token_id)
        if "\ufffd" not in text:
            if isinstance(token, str) and token.startswith("▁") and not text.startswith(" "):
                text = f" {text}"  # decoders of SentencePiece drop a text's first space
            return TokenName(text, text.encode())
        part = self._part(token_id, token)
        if part is None:
            return TokenName(text, None)
        shown = "".join(f"\\x{byte:02x}" for byte in part)
        return TokenName(f"bytes:{shown}", part)

    def _part(self, token_id: int, token: object) -> bytes | None:
        """The bytes of a token that is no text of its own."""
        assert self._tokenizer is not None
        if token_id in self._tokenizer.byte_fallback:
            return bytes([self._tokenizer.byte_fallback[token_id]])
        if isinstance(token, str) and all(letter in self._byte_letters for letter in token):
            return bytes(self._byte_letters[letter] for letter in token)
        return None


def _id_name(token_id: int) -> str:
    return f"token_id:{token_id}"


def _byte_letters() -> dict[str, int]:
    """The letter that byte-level tokenizers write each byte as (Radford et al. 2019, GPT-2).

    Printable Latin-1 stands for itself, the other bytes for the letters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    letters = {chr(byte): byte for byte in printable}
    letters.update({chr(0x100 + number): byte for number, byte in enumerate(others)})
    return letters
