"""A model without tensors whose next token is a function of all earlier ids, read through block tables.

Every slot of its KV cache holds a number made from the token there and the numbers of all earlier
positions, as found through the request's block table; a salt goes in at the start. So a block that is
shared wrongly, overwritten too early or computed from the wrong tokens shows in the next token.

`SimulatedModel` also stands for the runner: it knows only what plans tell it, and asserts that plans make
sense. `reference_generation` is what must come out, computed with no cache at all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from quire.plan import Admission, Chunk, StepPlan, StepResult, TokenLogprobs
from quire.request import FinishReason, Request

VOCABULARY = 200
NOT_A_NUMBER = None
Content = int | None


class StepError(Exception):
    """The step raised, as an executor may."""


def content_of(previous: Content, token_id: int) -> Content:
    """What a slot holds. Not a number if what it is computed from is none."""
    return NOT_A_NUMBER if previous is NOT_A_NUMBER else hash((previous, token_id))


def first_content(salt: str | None) -> int:
    return zlib.crc32((salt or "").encode())


def next_token(contents: Sequence[Content], seed: int, banned: Sequence[int]) -> int:
    token_id = hash((seed, *contents)) % VOCABULARY
    while token_id in banned:
        token_id = (token_id + 1) % VOCABULARY
    return token_id


def reference_generation(
    request: Request, max_model_len: int
) -> tuple[list[int], FinishReason, int | None]:
    """The request's whole output, why it ends and what ended it, with no cache and no batch."""
    params = request.params
    output: list[int] = []
    previous: Content = first_content(request.cache_salt)
    contents = [previous := content_of(previous, token_id) for token_id in request.prompt_token_ids]
    stop_ids = params.stop_token_ids or []
    while True:
        early = len(output) < params.min_tokens
        banned = [*sorted(request.eos_token_ids), *stop_ids] if early else []
        token_id = next_token(contents, request.seed, banned)
        output.append(token_id)
        contents.append(previous := content_of(previous, token_id))
        if token_id in request.eos_token_ids:
            return output, FinishReason.STOP, None
        if token_id in stop_ids:
            return output, FinishReason.STOP, token_id
        if len(output) == params.max_tokens or len(contents) >= max_model_len:
            return output, FinishReason.LENGTH, None


@dataclass
class _Sequence:
    """What a runner remembers of a request."""

    admission: Admission
    salt: str | None
    token_ids: list[int]
    table: list[int] = field(default_factory=list)


class SimulatedModel:
    """Runs plans on a KV cache of `num_blocks` blocks of `block_size` slots.

    Args:
        salts: request id -> salt; a real model has none, but this one must tell salts apart.
    """

    def __init__(self, num_blocks: int, block_size: int, salts: dict[str, str | None]) -> None:
        self.block_size = block_size
        self.slots: list[Content] = [0] * (num_blocks * block_size)
        self.sequences: dict[str, _Sequence] = {}
        self.condemned: set[int] = set()  # blocks known to be bad, not handed out since
        self._salts = salts

    def run(self, plan: StepPlan, poisoned: frozenset[str], tokens_per_sample: int) -> StepResult:
        """Run a step.

        Args:
            plan: what the scheduler wants.
            poisoned: requests whose new slots become not a number, as do all that read them.
            tokens_per_sample: how many tokens a sampling chunk yields, as speculation would.
        """
        self.take_in(plan)
        result = StepResult(plan.step)
        for chunk in plan.chunks:
            self._write(chunk, broken=chunk.request_id in poisoned)
        for chunk in plan.chunks:  # as in a real layer: everybody writes, then everybody reads
            self._read(chunk, result, tokens_per_sample)
        for request_id in result.failed:
            self._condemn(request_id)
        return result

    def crash(self, plan: StepPlan, early: bool) -> None:
        """Raise in the middle of a step, before or after nonsense was written to the cache."""
        if not early:
            self.take_in(plan)
            for chunk in plan.chunks:
                for position in range(chunk.start, chunk.start + chunk.length):
                    self.slots[self._slot(chunk.request_id, position)] = -position
        raise StepError(f"step {plan.step} crashed")

    def holds_nonsense(self, block_id: int) -> bool:
        """Whether a block still holds what is known to be not a number."""
        return block_id in self.condemned and self._is_nonsense(block_id)

    def _condemn(self, request_id: str) -> None:
        """A failed request's blocks are bad from now on, and what others computed from them."""
        bad = {id for id in self.sequences[request_id].table if self._is_nonsense(id)}
        self.condemned |= bad
        for sequence in self.sequences.values():
            if bad.intersection(sequence.table):
                self.condemned.update(sequence.table)

    def _is_nonsense(self, block_id: int) -> bool:
        start = block_id * self.block_size
        return NOT_A_NUMBER in self.slots[start : start + self.block_size]

    def take_in(self, plan: StepPlan) -> None:
        """Learn of releases, admissions and blocks, and assert that they make sense."""
        for request_id in plan.released:
            self.sequences.pop(request_id, None)
        admitted = set()
        for admission in plan.admitted:
            assert admission.request_id not in self.sequences, "admitted, but never released"
            admitted.add(admission.request_id)
            self.sequences[admission.request_id] = _Sequence(
                admission, self._salts[admission.request_id], list(admission.token_ids)
            )
        for chunk in plan.chunks:
            # Whole blocks that were found, or those that a parked request kept: the last one in part.
            num_matched = -(-chunk.start // self.block_size) if chunk.request_id in admitted else 0
            for block_id in chunk.new_block_ids[:num_matched]:
                assert not self.holds_nonsense(block_id), (
                    "what a failed request computed was found again"
                )
            for block_id in chunk.new_block_ids[num_matched:]:
                self.condemned.discard(block_id)
                start = block_id * self.block_size
                self.slots[start : start + self.block_size] = [0] * self.block_size
            self._extend(chunk)

    def _extend(self, chunk: Chunk) -> None:
        sequence = self.sequences[chunk.request_id]
        sequence.table += chunk.new_block_ids
        end = chunk.start + chunk.length
        assert chunk.length > 0, "an empty chunk"
        assert end <= len(sequence.token_ids), "a chunk of tokens that nobody knows"
        assert chunk.samples == (end == len(sequence.token_ids)), "a wrong `samples`"
        assert len(sequence.table) * self.block_size >= end, "a chunk without blocks"

    def _slot(self, request_id: str, position: int) -> int:
        block, offset = divmod(position, self.block_size)
        return self.sequences[request_id].table[block] * self.block_size + offset

    def _write(self, chunk: Chunk, broken: bool) -> None:
        sequence = self.sequences[chunk.request_id]
        previous: Content = first_content(sequence.salt)
        if chunk.start:
            previous = self.slots[self._slot(chunk.request_id, chunk.start - 1)]
        if broken:
            previous = NOT_A_NUMBER
        for position in range(chunk.start, chunk.start + chunk.length):
            previous = content_of(previous, sequence.token_ids[position])
            self.slots[self._slot(chunk.request_id, position)] = previous

    def _read(self, chunk: Chunk, result: StepResult, tokens_per_sample: int) -> None:
        request_id, sequence = chunk.request_id, self.sequences[chunk.request_id]
        end = chunk.start + chunk.length
        contents = [self.slots[self._slot(request_id, position)] for position in range(end)]
        wants_prompt = sequence.admission.params.prompt_logprobs is not None
        if NOT_A_NUMBER in contents:
            if chunk.samples or wants_prompt:
                result.failed[request_id] = "not a number"
            return
        if wants_prompt:
            last = min(end, sequence.admission.num_prompt_tokens - 1)
            result.prompt_logprobs[request_id] = [
                TokenLogprobs([sequence.token_ids[position]], [float(position)], [1])
                for position in range(chunk.start + 1, last + 1)
            ]
        if chunk.samples:
            new = self._sample(sequence, contents, tokens_per_sample)
            sequence.token_ids += new
            result.tokens[request_id] = list(new)
            result.logprobs[request_id] = [TokenLogprobs([id], [-1.0], [1]) for id in new]

    def _sample(self, sequence: _Sequence, contents: list[Content], count: int) -> list[int]:
        admission, new = sequence.admission, []
        for _ in range(count):
            num_output = len(contents) - admission.num_prompt_tokens
            early = num_output < admission.params.min_tokens
            banned = admission.end_token_ids if early else ()
            new.append(next_token(contents, admission.seed, banned))
            contents.append(content_of(contents[-1], new[-1]))
        return new
