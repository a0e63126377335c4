"""Thoughts followed by tokens: counted as their text has it, and closed in time."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quire.engine.thought_tags import thought_tags
from quire.formats.reasoning import FORMATS, ReasoningFormat
from quire.hub import bundled_model
from quire.thoughts import Thought, ThoughtTags, ThoughtTracker
from quire.tokenizer import Tokenizer
from tiny_tokenizers import KINDS

THINK = FORMATS[0]
TOKENS = ("<think>", "</think>", "<", "</", "th", "ink", "ink>", ">", "\n", " ", "a", "b c", "x<",
          "</think>\n", ">y", "<think>z", "k>.")  # fmt: skip
TAGS = ThoughtTags(
    "<think>",
    "</think>",
    {i: text for i, text in enumerate(TOKENS) if text not in ("a", "b c")},
    tuple((100 + length,) for length in range(len("</think>"))),
)


def count(texts: list[str], is_open: bool) -> int:
    """Tokens that hold any of the thought's characters, by the text alone."""
    text = "".join(texts)
    start = re.match(r"\s*<think>", text)
    if start is None and not is_open:
        return 0
    begin = start.end() if start else 0
    end = text.find("</think>", begin)
    end = len(text) if end < 0 else end
    number = place = 0
    for one in texts:
        number += place < end and place + len(one) > begin
        place += len(one)
    return number


@given(st.lists(st.sampled_from(range(len(TOKENS))), max_size=12), st.booleans())
@example([2, 3, 4, 5, 7], True)
@example([8, 2, 3, 4, 6], True)
def test_tokens_are_counted_as_their_text_has_it(token_ids: list[int], is_open: bool) -> None:
    tracker = ThoughtTracker(Thought(TAGS, is_open))
    for token_id in token_ids:
        tracker.take(token_id)
        assert tracker.closing() == (), "there is no budget"
    tracker.finish()
    assert tracker.num_tokens == count([TOKENS[i] for i in token_ids], is_open)


@given(st.lists(st.sampled_from(range(len(TOKENS))), max_size=12), st.booleans(), st.integers(0, 5))
def test_a_thought_is_closed_when_its_budget_is_used_up(
    token_ids: list[int], is_open: bool, budget: int
) -> None:
    tracker = ThoughtTracker(Thought(TAGS, is_open, budget))
    text = ""
    for number, token_id in enumerate(token_ids):
        if closing := tracker.closing():
            text += TAGS.end[closing[0] - 100 :]
            break
        assert count([TOKENS[i] for i in token_ids[:number]], is_open) <= budget
        tracker.take(token_id)
        text += TOKENS[token_id]
    else:
        return
    assert "</think>" in text


def tags_of(tokenizer: Tokenizer, reasoning: ReasoningFormat = THINK) -> ThoughtTags:
    return thought_tags(tokenizer, reasoning)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("added", [False, True])
def test_every_tokenizer_spells_the_tags(kind: str, added: bool) -> None:
    hf = KINDS[kind]()
    if added:
        hf.add_tokens(["<think>", "</think>"])
    tokenizer = Tokenizer(hf)
    tags = tags_of(tokenizer)
    if added:
        token_id = hf.convert_tokens_to_ids("</think>")
        assert set(tags.closing) == {(token_id,)} and tags.pieces[token_id] == "</think>"
    for length, closing in enumerate(tags.closing):
        tracker = ThoughtTracker(Thought(tags, is_open=True, budget=3))
        for token_id in tokenizer.encode("so it is" + tags.end[:length], add_special_tokens=False):
            tracker.take(token_id)
        before = tracker.num_tokens
        for token_id in tracker.closing():
            tracker.take(token_id)
        assert tracker.closing() == () and closing, "it is closed"
        assert before <= tracker.num_tokens


@pytest.mark.parametrize("reasoning", FORMATS, ids=lambda one: one.name)
def test_thoughts_of_the_bundled_model(reasoning: ReasoningFormat) -> None:
    tokenizer = Tokenizer.load(bundled_model())
    tags = tags_of(tokenizer, reasoning)
    thought = tokenizer.encode("Hm, 2 < 3 and </b> is <no> tag.", add_special_tokens=False)
    start, end, rest = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in (tags.start, tags.end, " So it is 4.")
    )
    tracker = ThoughtTracker(Thought(tags, is_open=False))
    for token_id in [*start, *thought, *end, *rest]:
        tracker.take(token_id)
    tracker.finish()
    assert tracker.num_tokens == len(thought)
