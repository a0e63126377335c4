"""Random people, places, things and numbers, parted into a training and a held-out side.

Every invented name, and every pair of a real first and family name, falls on one side by a
checksum of its letters, so none of the evaluation's can ever stand in training, whatever the
seed. Real words by themselves stand in training: a token never shown there is never learned.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from typing import TypeVar

import words
from capitals import CAPITALS
from pieces import PIECES

T = TypeVar("T")
ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
FIRST_TRAIN_SEED = 1000
HELD_OUT_SEED = 7


def is_held_out(word: str) -> bool:
    """Whether a name belongs to the evaluation: about one in eight does."""
    return zlib.crc32(word.encode()) % 8 == 0


def articled(text: str) -> str:
    """Write "an" before a vowel."""
    return ARTICLE.sub(r"\1n ", text)


class World:
    """A seeded source of everything that varies; `held` chooses the evaluation's side."""

    def __init__(self, seed: int, held: bool = False, hardness: float = 1.0) -> None:
        self.rng = random.Random(seed)
        self.held = held
        self.hardness = hardness

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self.rng.random() < p

    def pick(self, items: Sequence[T]) -> T:
        """Any one item."""
        return items[int(self.rng.random() * len(items))]

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self.rng.randint(low, high)

    def some(self, items: Sequence[T], low: int, high: int) -> list[T]:
        """Between low and high different items in random order."""
        return self.rng.sample(list(items), min(len(items), self.number(low, high)))

    def phrase(self, items: Sequence[str]) -> str:
        """A phrasing; the held-out side alone sees the last one of a list of five or more."""
        if len(items) < 5:
            return self.pick(items)
        return items[-1] if self.held and self.chance(0.3) else self.pick(items[:-1])

    def named(self, items: Sequence[str]) -> str:
        """A real name, which may stand on both sides."""
        return self.pick(items)

    def made_up(self, syllables: int = 0) -> str:
        """An invented name of this side, two or three syllables long."""
        if not self.held and self.chance(0.15):
            return self.wild()
        while True:
            n = syllables or self.pick((2, 2, 2, 3))
            parts = [self.pick(words.ONSETS) + self.pick(words.VOWELS) for _ in range(n)]
            name = ("".join(parts) + self.pick(words.CODAS)).capitalize()
            if is_held_out(name) == self.held:
                return name

    def wild(self) -> str:
        """Any word of the vocabulary, two run together or random letters, as a name.

        Only in training: a token that never is an answer there can never be copied later.
        """
        while True:
            kind = self.number(0, 3)
            if kind == 0:
                letters = "abcdefghijklmnopqrstuvwxyz"
                name = "".join(self.pick(letters) for _ in range(self.number(2, 6)))
            elif kind == 1:
                name = self.pick(PIECES) + self.pick(PIECES)
            else:
                name = self.pick(PIECES)
            if not is_held_out(name.capitalize()):
                return name.capitalize()

    def _mixed(self, real: Sequence[str], share: float = 0.45) -> str:
        return self.made_up() if self.held or self.chance(share) else self.named(real)

    def first(self) -> str:
        """A first name, real or invented; in the evaluation invented."""
        return self._mixed(words.FIRST)

    def last(self) -> str:
        """A family name, real or invented; in the evaluation invented."""
        return self._mixed(words.LAST)

    def person(self) -> str:
        """A full name, at times a first name alone; real ones are held out as a pair."""
        if self.chance(0.25):
            return self.first()
        if self.chance(0.35):
            while True:
                first, last = self.pick(words.FIRST), self.pick(words.LAST)
                # Early training held out single names instead: the evaluation keeps to both rules.
                fits = not self.held or is_held_out(first) or is_held_out(last)
                if is_held_out(f"{first} {last}") == self.held and fits:
                    return f"{first} {last}"
        if self.held or self.chance(0.5):
            return f"{self.made_up()} {self.made_up()}"
        pair = [self.made_up(), self.named(words.FIRST if self.chance(0.5) else words.LAST)]
        return " ".join(pair if pair[1] in words.LAST else pair[::-1])

    def place(self) -> str:
        """A town, real or invented; in the evaluation invented."""
        return self._mixed(words.PLACES if self.chance(0.6) else list(CAPITALS.values()), 0.4)

    def country(self) -> str:
        """A real country without its article."""
        return self.named(list(CAPITALS)).removeprefix("the ")

    def company(self) -> str:
        """A firm."""
        return f"{self._mixed(words.LAST, 0.7)} {self.pick(words.COMPANY)}"

    def building(self) -> str:
        """A building with a name."""
        return f"{self._mixed(words.LAST, 0.7)} {self.pick(words.BUILDING)}"

    def street(self) -> str:
        """A street address."""
        return f"{self.number(1, 99)} {self._mixed(words.LAST, 0.5)} {self.pick(words.STREET)}"

    def code(self) -> str:
        """A short code such as A-27 or KX350."""
        letters = "".join(self.pick("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(self.number(1, 2)))
        return f"{letters}{self.pick(('-', ''))}{self.number(10, 999)}"

    def word(self) -> str:
        """A lower-case invented word."""
        return self.made_up().lower()

    def thing(self) -> str:
        """A plain object with an adjective or colour at times."""
        base = self.pick(words.THINGS)
        extra = words.COLOURS if self.chance(0.5) else words.ADJECTIVES
        return f"{self.pick(extra)} {base}" if self.chance(0.4) else base

    def subject(self) -> str:
        """Something one may search for, one to four words."""
        kind = self.number(0, 5)
        topic = self.pick(words.TOPICS)
        if kind == 0:
            return topic if self.held or self.chance(0.4) else self.pick(PIECES)
        if kind == 1:
            return f"{self.pick(words.ADJECTIVES)} {topic}"
        if kind == 2:
            return f"{topic} in {self.place()}"
        if kind == 3:
            return f"{self.pick(words.ADJECTIVES)} {self.pick(words.THINGS)}"
        if kind == 4:
            return f"{self.pick(words.FOODS)} and {self.pick(words.FOODS)}"
        return f"{self.pick(words.ANIMALS)} {self.pick(words.TOPICS)}"

    def email(self) -> str:
        """An e-mail address."""
        host = self.pick(("mail.com", "example.com", "example.org", "post.net"))
        return f"{self.first().lower()}@{host}"

    def year(self) -> int:
        """A year."""
        return self.number(1800, 2030)

    def time(self) -> str:
        """A time of day."""
        return f"{self.number(0, 23):02d}:{self.pick(('00', '15', '30', '45'))}"

    def date(self) -> str:
        """A date, as ISO or in words."""
        if self.chance(0.5):
            month, day = self.number(1, 12), self.number(1, 28)
            return f"{self.number(2020, 2029)}-{month:02d}-{day:02d}"
        return f"{self.number(1, 28)} {self.pick(words.MONTHS)}"

    def amount(self) -> int:
        """A whole number, mostly small."""
        return self.number(1, self.pick((10, 20, 100, 100, 1000, 10000)))
