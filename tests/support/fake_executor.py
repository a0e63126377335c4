"""An executor without a model: tokens are scripted, or a function of all the ids before them.

Token ids are kept in a make-believe KV cache, block by block, and read back through the block table, so
that a block given to two requests, a stale table or a wrong prefix hit shows as a wrong token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.config import CacheConfig, EngineConfig, ModelLimits
from quire.executor.base import ModelFacts
from quire.plan import Admission, StepPlan, StepResult, TokenLogprobs

NextToken = Callable[[Sequence[int]], int]


def hashed_token(vocab_size: int) -> NextToken:
    """A next token that depends on every id before it and on their order; never id 0."""

    def next_token(token_ids: Sequence[int]) -> int:
        state = 1469598103934665603
        for token_id in token_ids:
            state = (state ^ (token_id + 1)) * 1099511628211 % 2**64
        return 1 + (state >> 17) % (vocab_size - 1)

    return next_token


def scripted_tokens(scripts: Mapping[tuple[int, ...], Sequence[int]], end: int = 0) -> NextToken:
    """For each prompt its completion, then `end` for ever; a prompt without a script gives `end`."""

    def next_token(token_ids: Sequence[int]) -> int:
        for prompt, completion in scripts.items():
            done = len(token_ids) - len(prompt)
            if done >= 0 and list(token_ids) == [*prompt, *completion[:done]]:
                return completion[done] if done < len(completion) else end
        return end

    return next_token


@dataclass
class _Held:
    admission: Admission
    token_ids: list[int]
    block_ids: list[int] = field(default_factory=list)


class FakeExecutor:
    """`Executor` for tests of everything above it.

    Args:
        next_token: ids so far -> next id; default: `hashed_token`.
        fails: ids so far -> what is wrong with this request, or None; stands for NaN logits.
        before_step: called with each plan before it is run, after it is recorded; it may raise, which
            fails the whole step, or wait.
        vocab_size, eos_token_ids, generation_defaults, folder: the model's facts; `folder` where a test
            has a tokenizer.
        num_blocks: size of the cache.
        options: of `EngineConfig`.

    Attributes:
        plans: every plan handed in, failed ones too.
        gate: a cleared event holds the next step until it is set again.
        at_gate: set while a step waits at the gate.
        closed: whether `close` was called.
    """

    def __init__(
        self,
        next_token: NextToken | None = None,
        *,
        fails: Callable[[Sequence[int]], str | None] | None = None,
        before_step: Callable[[StepPlan], None] | None = None,
        vocab_size: int = 1000,
        eos_token_ids: Sequence[int] = (0,),
        generation_defaults: Mapping[str, Any] | None = None,
        folder: Path = Path("fake-model"),
        num_blocks: int = 64,
        **options: Any,
    ) -> None:
        options.setdefault("block_size", 4)
        options.setdefault("max_model_len", 128)
        config = EngineConfig.from_options(**{"model": str(folder), **options})
        self.config = config.resolve(
            ModelLimits(max_positions=1 << 20, dtype="float32", device="cpu")
        )
        self.cache = CacheConfig(
            num_blocks, self.config.block_size, self.config.enable_prefix_caching
        )
        assert self.config.max_model_len is not None
        self.cache.check_holds(self.config.max_model_len)
        self.facts = ModelFacts(
            folder, vocab_size, frozenset(eos_token_ids), dict(generation_defaults or {})
        )
        self.next_token = next_token or hashed_token(vocab_size)
        self.fails = fails or (lambda token_ids: None)
        self.before_step = before_step or (lambda plan: None)
        self.plans: list[StepPlan] = []
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()
        self.closed = False
        self._held: dict[str, _Held] = {}
        self._cached_ids = [-1] * self.cache.num_tokens

    def execute(self, plan: StepPlan) -> StepResult:
        assert not self.closed, "a step after close"
        self.plans.append(plan)
        if not self.gate.is_set():
            self.at_gate.set()
            self.gate.wait()
            self.at_gate.clear()
        for request_id in plan.released:
            self._held.pop(request_id, None)
        for admission in plan.admitted:
            self._held[admission.request_id] = _Held(admission, list(admission.token_ids))
        self.before_step(plan)
        self._write(plan)
        result = StepResult(plan.step)
        for chunk in plan.chunks:
            held = self._held[chunk.request_id]
            end = chunk.start + chunk.length
            assert chunk.samples == (end == len(held.token_ids)), (
                f"{chunk} samples at the wrong end"
            )
            seen = [self._cached_ids[slot] for slot in self._slots(held, 0, end)]
            message = self.fails(seen)
            if message is not None:
                result.failed[chunk.request_id] = message
                result.num_not_finite += 1
                continue
            self._report_prompt(held, chunk.start, end, result)
            if chunk.samples:
                token = self.next_token(seen)
                held.token_ids.append(token)
                result.tokens[chunk.request_id] = [token]
                count = held.admission.params.logprobs
                if count is not None:
                    result.logprobs[chunk.request_id] = [self._logprobs(token, count)]
        return result

    def close(self) -> None:
        self.closed = True
        self.gate.set()

    def _write(self, plan: StepPlan) -> None:
        """Put every chunk's ids into the cache, before any of them is read."""
        for chunk in plan.chunks:
            held = self._held[chunk.request_id]
            held.block_ids.extend(chunk.new_block_ids)
            end = chunk.start + chunk.length
            assert chunk.length > 0 and end <= len(held.token_ids), f"{chunk} has unknown tokens"
            for position, slot in enumerate(self._slots(held, chunk.start, end), chunk.start):
                self._cached_ids[slot] = held.token_ids[position]

    def _slots(self, held: _Held, start: int, end: int) -> list[int]:
        size = self.cache.block_size
        return [held.block_ids[i // size] * size + i % size for i in range(start, end)]

    def _report_prompt(self, held: _Held, start: int, end: int, result: StepResult) -> None:
        count = held.admission.params.prompt_logprobs
        last = min(end, held.admission.num_prompt_tokens - 1)
        if count is not None and last > start:
            result.prompt_logprobs[held.admission.request_id] = [
                self._logprobs(held.token_ids[position], count)
                for position in range(start + 1, last + 1)
            ]

    def _logprobs(self, token: int, count: int) -> TokenLogprobs:
        """The token at -0.5 and rank 1, then ids token, token + 1, ... at -0.5, -1.5, ..."""
        width = self.facts.vocab_size
        top = range(width if count == -1 else min(count, width))
        return TokenLogprobs(
            token_ids=[token, *((token + i) % width for i in top)],
            logprobs=[-0.5, *(-0.5 - i for i in top)],
            ranks=[1, *(1 + i for i in top)],
        )
