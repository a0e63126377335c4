"""Prompts for the load: random texts of a length, texts that share beginnings, or a file's.

Lengths are exact where a tokenizer is at hand; without one, words stand for tokens, and the report tells
what the server counted. Every prompt follows from the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quire.cli.bench.load import Prompt
from quire.errors import ConfigError

if TYPE_CHECKING:
    from quire.tokenizer import Tokenizer

# Each is one token, with the space before it, in the vocabularies of most models.
WORDS = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book eye "
    "job word business issue side kind head house service friend father power hour game line end "
    "member law car city name team minute idea body back parent face level office door health person "
    "art war history party result change morning reason research girl guy moment air teacher force"
)


class Writer(Protocol):
    """Makes random texts."""

    def write(self, num_tokens: int, rng: random.Random) -> str: ...


@dataclass(frozen=True)
class WordWriter:
    """Texts of plain words, for a server whose tokenizer is not known.

    Args:
        tokens_per_word: as the server counts them.
    """

    tokens_per_word: float = 1.0

    def write(self, num_tokens: int, rng: random.Random) -> str:
        count = max(round(num_tokens / self.tokens_per_word), 1)
        return " ".join(rng.choices(WORDS.split(), k=count))


class TokenWriter:
    """Texts that have the asked number of tokens, of the tokenizer's own random words.

    Args:
        tokenizer: the model's.
    """

    NUM_WORDS = 2000
    ROUNDS = 10  # a text that is still of a wrong length then is taken as it is

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._words = list(islice(self._single_tokens(), self.NUM_WORDS)) or WORDS.split()

    def write(self, num_tokens: int, rng: random.Random) -> str:
        words = rng.choices(self._words, k=num_tokens)
        for _ in range(self.ROUNDS):
            missing = num_tokens - self._count(" ".join(words))
            if not missing:
                break
            words = words[:missing] if missing < 0 else words + rng.choices(self._words, k=missing)
        return " ".join(words)

    def _single_tokens(self) -> Iterator[str]:
        """Words that are one token each after a space, in an order that depends on nothing."""
        ids = list(range(self._tokenizer.vocab_size))
        random.Random(0).shuffle(ids)
        for token_id in ids:
            word = self._tokenizer.id_to_text(token_id).strip()
            if word.isascii() and word.isalpha() and self._count(f"a {word}") == 2:
                yield word

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True)
class RandomPrompts:
    """Random texts, alone or after one of a few shared beginnings.

    Args:
        writer: makes the texts.
        input_len, output_len: tokens of prompt (after its beginning) and answer.
        range_ratio: lengths are spread evenly from (1 - ratio) to (1 + ratio) times these.
        prefix_len: tokens of a shared beginning; 0 for none.
        num_prefixes: how many beginnings there are; prompts take turns.
        chat: make conversations of one message.
    """

    writer: Writer
    input_len: int
    output_len: int
    range_ratio: float = 0.0
    prefix_len: int = 0
    num_prefixes: int = 1
    chat: bool = False

    def make(self, count: int, rng: random.Random) -> list[Prompt]:
        prefixes = [""]
        if self.prefix_len:
            prefixes = [
                self.writer.write(self.prefix_len, rng) + " " for _ in range(self.num_prefixes)
            ]
        prompts = []
        for prefix in islice(cycle(prefixes), count):
            text = prefix + self.writer.write(self._length(self.input_len, rng), rng)
            prompts.append(Prompt(_content(text, self.chat), self._length(self.output_len, rng)))
        return prompts

    def _length(self, middle: int, rng: random.Random) -> int:
        spread = int(middle * self.range_ratio)
        return max(rng.randint(middle - spread, middle + spread), 1)


@dataclass(frozen=True)
class FilePrompts:
    """The prompts of a JSONL file, in order, from the beginning again where there are too few.

    A line has `prompt` (a text) or, for a chat, `messages`; `max_tokens` is of the answer.

    Args:
        path: of the file.
        output_len: tokens of the answer where a line does not say.
        chat: the endpoint takes conversations; a text is then one message.

    Raises:
        ConfigError: by `make`; the file cannot be read, or a line holds no prompt.
    """

    path: Path
    output_len: int
    chat: bool = False

    def make(self, count: int, rng: random.Random) -> list[Prompt]:
        del rng  # nothing is left to chance
        prompts = list(islice(self._read(), count))
        if not prompts:
            raise ConfigError(f"{self.path} holds no prompts", param="dataset_path")
        return list(islice(cycle(prompts), count))

    def _read(self) -> Iterator[Prompt]:
        try:
            with self.path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield self._prompt(number, line)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {self.path}: {error}", param="dataset_path") from None

    def _prompt(self, number: int, line: str) -> Prompt:
        try:
            fields = json.loads(line)
            content = fields["messages" if self.chat and "messages" in fields else "prompt"]
            if isinstance(content, str):
                content = _content(content, self.chat)
            return Prompt(content, int(fields.get("max_tokens", self.output_len)))
        except (ValueError, TypeError, KeyError):
            wanted = '"prompt" or "messages"' if self.chat else '"prompt"'
            raise ConfigError(
                f"line {number} of {self.path} is no JSON object with {wanted}",
                param="dataset_path",
            ) from None


def _content(text: str, chat: bool) -> Any:
    return [{"role": "user", "content": text}] if chat else text
