"""Log-probabilities in the shapes of the three endpoints. Pure: engine outputs in, dicts out."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from quire.api.token_names import TokenNames
from quire.outputs import Logprob, RequestOutput

LOWEST = -9999.0  # JSON knows no minus infinity

Entries = Mapping[int, Logprob]  # the token that stands there first, then the most likely ones


class LogprobShapes:
    """Makes the logprobs of one answer.

    Args:
        names: of the model's tokens.
        top: how many of the most likely tokens are asked for; -1: all there are.
        as_ids: name tokens by their ids.
        silent: ids that have no part in the text.
    """

    def __init__(
        self,
        names: TokenNames,
        top: int,
        as_ids: bool = False,
        silent: frozenset[int] = frozenset(),
    ) -> None:
        self._names = names
        self._top = top
        self._as_ids = as_ids
        self._silent = silent

    def chat(self, positions: Sequence[Entries]) -> dict[str, Any]:
        """`logprobs` of a chat choice."""
        content = []
        for entries in positions:
            token_id, entry = next(iter(entries.items()))
            content.append(
                {
                    **self._token(token_id, entry),
                    "top_logprobs": [self._token(i, one) for i, one in self._most_likely(entries)],
                }
            )
        return {"content": content, "refusal": None}

    def response(self, positions: Sequence[Entries]) -> list[dict[str, Any]]:
        """`logprobs` of an output text, where bytes are never null."""
        content: list[dict[str, Any]] = self.chat(positions)["content"]
        for position in content:
            for token in (position, *position["top_logprobs"]):
                token["bytes"] = token["bytes"] or []
        return content

    def completion(
        self, positions: Sequence[tuple[int, Entries | None]], offset: TextOffset
    ) -> dict[str, Any]:
        """`logprobs` of a completion choice.

        Args:
            positions: the token that stands there, and its entries; None at a prompt's first token.
            offset: where in the choice's text the first of them begins; it moves on.
        """
        shown: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for token_id, entries in positions:
            name = self._names(token_id, as_id=self._as_ids)
            shown["tokens"].append(name.text)
            text = b"" if token_id in self._silent else name.bytes
            shown["text_offset"].append(offset.advance(text))
            if entries is None:
                shown["token_logprobs"].append(None)
                shown["top_logprobs"].append(None)
                continue
            likely = dict([(token_id, entries[token_id]), *self._most_likely(entries)])
            shown["token_logprobs"].append(_finite(entries[token_id].logprob))
            shown["top_logprobs"].append(
                {
                    self._names(i, as_id=self._as_ids).text: _finite(one.logprob)
                    for i, one in likely.items()
                }
            )
        return shown

    def _token(self, token_id: int, entry: Logprob) -> dict[str, Any]:
        name = self._names(token_id, as_id=self._as_ids)
        return {
            "token": name.text,
            "logprob": _finite(entry.logprob),
            "bytes": None if name.bytes is None else list(name.bytes),
        }

    def _most_likely(self, entries: Entries) -> list[tuple[int, Logprob]]:
        if self._top == 0:
            return []
        ranked = sorted(entries.items(), key=lambda item: item[1].rank or 0)
        return ranked if self._top == -1 else ranked[: self._top]


class TextOffset:
    """Where the next token begins in a text, in characters; a split character counts at its end."""

    def __init__(self, start: int = 0) -> None:
        self._characters = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def advance(self, token: bytes | None) -> int:
        """The offset of this token; goes on to the next one."""
        here = self._characters
        self._characters += 1 if token is None else len(self._decoder.decode(token))
        return here


def num_entries(outputs: Sequence[RequestOutput]) -> int:
    """How many log-probabilities answers hold: what making their shapes costs."""
    return sum(
        len(entries or ())
        for output in outputs
        for positions in (output.prompt_logprobs, *(one.logprobs for one in output.outputs))
        for entries in positions or ()
    )


def prompt_logprobs(positions: Sequence[Entries | None]) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each position token id -> log-probability, rank and text."""
    return [
        None
        if entries is None
        else {
            str(token_id): {
                "logprob": _finite(entry.logprob),
                "rank": entry.rank,
                "decoded_token": entry.decoded_token,
            }
            for token_id, entry in entries.items()
        }
        for entries in positions
    ]


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
