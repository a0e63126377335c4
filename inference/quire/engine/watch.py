"""One sequence whose fields are asked about: its tokens by fields, and what may be given out of them.

    tokens of a step ─► fields that are whole ─► (validators) ─► released ─► (scores) ─► given out

Tokens of a field with a validator are held back until it is accepted; all others until the scores of the
fields before them are there. It decides nothing and calls nobody: `Watchers` does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quire.engine.confidence import ValueTree, value_text
from quire.engine.field_values import MAX_VALUES, possible_values
from quire.engine.fields import BLANKS, Field, FieldScanner, Preface
from quire.engine.output import RequestState
from quire.engine.validators import Refusal, Validators
from quire.grammar import CompiledGrammar
from quire.outputs import FieldConfidence, FieldReport, RefusedValue
from quire.plan import Progress, TokenLogprobs
from quire.request import Ban, FinishReason, Request
from quire.structured_outputs import StructuredOutputsParams


@dataclass(slots=True)
class Scored:
    """A field whose values are being scored."""

    field: Field
    first: int  # number of the output token that it begins in
    tree: ValueTree


@dataclass(slots=True)
class _Refused:
    """Values of one field that were taken back."""

    texts: list[bytes] = field(default_factory=list)
    values: list[str] = field(default_factory=list)  # as JSON, however they were written
    message: str = ""


class Watch:
    """The fields of one sequence.

    Args:
        state: the caller's request.
        index: which of its sequences.
        request: the sequence, with its grammar.
        shape: what is asked of the text.
    """

    def __init__(
        self, state: RequestState, index: int, request: Request, shape: StructuredOutputsParams
    ) -> None:
        assert isinstance(request.grammar, CompiledGrammar), "fields are a grammar's"
        self.state = state
        self.index = index
        self.request = request
        self._preface: Preface | None = None
        if (around := shape.surroundings) is not None:
            self._preface = Preface(around.start.encode(), around.end.encode(), around.is_open)
            shape = around.content
        self.shape = shape
        self.validators = Validators(shape.validators or {})
        self.end: Progress | None = None  # as the scheduler told it, once it has
        self.is_judged = False  # its validators are at work
        self.scored: list[Scored] = []  # whose scores are not there yet
        self._grammar = request.grammar
        self._tokens = request.grammar.vocabulary.token_bytes
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._ends: list[int] = []  # bytes up to each token's end
        self._scanner = FieldScanner(self._preface)
        self._whole: Field | None = None  # the text's value as a whole
        self._leaves: list[Field] = []  # whole, and not looked at for their confidence
        self._released = 0  # tokens that stand
        self._given = 0  # tokens that went out
        self._refused: dict[tuple[str, int], _Refused] = {}  # by path and first byte
        self._confidence: dict[str, FieldConfidence] = {}
        self._errors: list[RefusedValue] = []

    # ------------------------------------------------------------------ tokens in

    def take(self, progress: Progress) -> list[Field]:
        """Take a step's tokens in; returns the fields that are whole now and have validators."""
        whole = self._append(progress.new_token_ids)
        self._logprobs += progress.logprobs
        if progress.finish_reason is not None:
            self.end = progress
            whole = (
                self._choice() if self.shape.kind == "choice" else whole + self._scanner.finish()
            )
        self._whole = next((one for one in whole if one.path == ""), self._whole)
        self._leaves += [one for one in whole if one.is_leaf]
        return [one for one in whole if self.validators.covers(one.path)]

    def _choice(self) -> list[Field]:
        """The text that was chosen, if all of it is there."""
        begin, text = self._scanner.begin, bytes(self._scanner.text)
        if begin is None:
            return []
        if self._preface is not None:
            begin = len(text) - len(text[begin:].lstrip(BLANKS))
        chosen = text[begin:].decode(errors="replace")
        if chosen not in (self.shape.choice or ()):
            return []
        return [Field("", begin, len(text), chosen, is_leaf=True)]

    def _append(self, token_ids: Sequence[int]) -> list[Field]:
        whole = []
        for token_id in token_ids:
            whole += self._scanner.feed(self._tokens[token_id])
            self._token_ids.append(token_id)
            self._ends.append(len(self._scanner.text))
        return whole

    def release(self) -> None:
        """Let all tokens stand but those of fields that are still to be validated."""
        held = [
            start for path, start in self._scanner.open_values() if self.validators.covers(path)
        ]
        self._released = len(self._token_ids)
        if held and self.end is None:
            self._released = self._first_token(held[0])

    def _first_token(self, start: int) -> int:
        """Number of the token that the byte at `start` is of."""
        return next((i for i, end in enumerate(self._ends) if end > start), len(self._ends))

    # ------------------------------------------------------------------ values taken back

    def refused_before(self, one: Field) -> Refusal | None:
        """A refusal of a value that its validator need not see again, in another spelling perhaps."""
        refused = self._refused.get((one.path, one.start))
        if refused is not None and _json(one.value) in refused.values:
            return Refusal(one, refused.message)
        return None

    def may_take_back(self, refusal: Refusal) -> bool:
        """Whether another value may be tried: there are retries left, and values other than the refused."""
        refused = self._refused.get((refusal.field.path, refusal.field.start), _Refused())
        return len(refused.texts) < self.shape.max_retries and (
            self._text(refusal.field) not in refused.texts
        )

    def take_back(self, refusal: Refusal) -> int:
        """Forget the field and all that came after it, and ban its value there.

        Returns:
            how many tokens of the sequence are left, the prompt's included.
        """
        one = refusal.field
        first = self._first_token(one.start)
        assert first >= self._released, "it was given out"
        place = self.request.num_prompt_tokens + first
        key = (one.path, one.start)
        self._refused = {
            known: refused
            for known, refused in self._refused.items()
            if known == key or known[1] < one.start
        }
        refused = self._refused.setdefault(key, _Refused())
        refused.texts.append(self._text(one))
        refused.values.append(_json(one.value))
        refused.message = refusal.message
        bans = {ban.num_tokens: ban.texts for ban in self.request.bans if ban.num_tokens <= place}
        begin = self._ends[first - 1] if first else 0
        bans[place] = (*bans.get(place, ()), bytes(self._scanner.text[begin : one.end]))
        self.request.bans = tuple(Ban(at, texts) for at, texts in bans.items())
        self._rewind(first, one.start)
        return place

    def _rewind(self, num_tokens: int, start: int) -> None:
        kept = self._token_ids[:num_tokens]
        self._token_ids, self._ends, self._whole = [], [], None
        self._scanner = FieldScanner(self._preface)
        self._append(kept)
        del self._logprobs[num_tokens:]
        self._leaves = [one for one in self._leaves if one.start < start]
        self.end = None

    def let_stand(self, refusal: Refusal) -> None:
        """Keep a refused value after all, and say so in the report."""
        one = refusal.field
        self._errors.append(RefusedValue(one.path, one.value, refusal.message))

    def _text(self, one: Field) -> bytes:
        return bytes(self._scanner.text[one.start : one.end])

    # ------------------------------------------------------------------ scores

    def begin_scores(self) -> list[Scored]:
        """Look at the fields that stand; returns those of few values, whose tokens are to be scored."""
        if not self.shape.confidence:
            return []
        stand = self._ends[self._released - 1] if self._released else 0
        ready = [one for one in self._leaves if one.end <= stand]
        self._leaves = [one for one in self._leaves if one.end > stand]
        begun = [scored for one in ready if (scored := self._look(one)) is not None]
        self.scored += begun
        return begun

    def _look(self, one: Field) -> Scored | None:
        first = self._first_token(one.start)
        num_tokens = sum(end < one.end for end in self._ends[first:]) + 1
        logprob = sum(entry.logprobs[0] for entry in self._logprobs[first : first + num_tokens])
        self._confidence[one.path] = FieldConfidence(one.value, logprob, num_tokens=num_tokens)
        values = self._values(one)
        if values is None:
            return None
        matcher = self._grammar.matcher()
        for token_id in self._token_ids[:first]:
            matcher.accept(token_id)
        begin = self._ends[first - 1] if first else 0
        gap = bytes(self._scanner.text[begin : one.start])
        is_json = self.shape.kind != "choice"
        return Scored(one, first, ValueTree(values, gap, matcher, self._tokens, is_json=is_json))

    def _values(self, one: Field) -> list[Any] | None:
        """What the field may be, where that can be told apart in a dict; None: its tokens say it all."""
        if self.shape.kind == "choice":
            values: list[Any] | None = list(dict.fromkeys(self.shape.choice or ()))
        elif self.shape.kind == "json":
            values = possible_values(self.shape.json, one.path)
        else:
            values = None
        if values is None or len(values) > MAX_VALUES:
            return None
        if any(isinstance(value, dict | list) for value in values):
            return None
        written = self._text(one)
        forms = [v.encode() if self.shape.kind == "choice" else value_text(v) for v in values]
        if written not in forms or len(set(values)) < len(values):
            return None
        return values

    def output_before(self, scored: Scored) -> list[int]:
        """The output tokens before a field."""
        return self._token_ids[: scored.first]

    def end_scores(self, scored: Scored) -> None:
        """Take the distribution of a field in."""
        self.scored.remove(scored)
        distribution = scored.tree.distribution()
        found = self._confidence[scored.field.path]
        if scored.field.value in distribution:
            found.distribution, found.mass = distribution, scored.tree.mass
            found.logprob = math.log(distribution[scored.field.value])

    # ------------------------------------------------------------------ tokens out

    def give(self) -> Progress | None:
        """What may go out now and did not before; with the end, once everything is known."""
        if self.scored or self.is_judged:
            return None
        is_last = self.end is not None and self._released == len(self._token_ids)
        if self._given == self._released and not is_last:
            return None
        progress = Progress(self.request.id)
        progress.new_token_ids = self._token_ids[self._given : self._released]
        progress.logprobs = self._logprobs[self._given : self._released]
        self._given = self._released
        if is_last and self.end is not None:
            progress.finish_reason = self.end.finish_reason
            progress.stop_reason = self.end.stop_reason
        return progress

    def report(self) -> FieldReport:
        """What was found, at the end."""
        report = FieldReport()
        if self._whole is not None and self.end and self.end.finish_reason is FinishReason.STOP:
            report.parsed = self._whole.value
        if self.shape.confidence:
            report.confidence = self._confidence
        if self.validators:
            report.validation_errors = self._errors
        return report


def _json(value: Any) -> str:
    """Equal for equal values: numbers by value, objects whatever their order."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value
