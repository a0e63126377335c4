"""One step: from a `StepPlan` to a `StepResult`.

Owns the order of things: request state, tensors, forward pass, logits where they are needed, the choice
of tokens, what is reported of them. It knows no scheduling, and no text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from quire.config import EngineConfig
from quire.grammar import MaskFiller
from quire.models.base import CausalLM
from quire.plan import StepPlan, StepResult, TokenLogprobs
from quire.request import Pooling
from quire.runner.batch import (
    Batch,
    PoolSpan,
    PromptSpan,
    RequestState,
    RequestTable,
    closing_tokens,
)
from quire.runner.logits import apply_rules
from quire.runner.logprobs import certain, token_logprobs, without_banned
from quire.runner.pooler import Pooler
from quire.runner.replay import Replay
from quire.runner.sampler import sample, uniforms
from quire.runner.structure import Structure
from quire_kernels import dispatch as ops

# Elements of the logits that prompt log-probabilities hold at a time: 64 MiB of float32.
PROMPT_LOGITS = 1 << 24

NOT_FINITE = (
    "the model gave NaN or infinite logits for this request: its weights may be damaged, or its "
    "activations may overflow; try dtype='float32' or 'bfloat16'"
)
NOTHING_LEFT = (
    "no token can be chosen for this request: allowed_token_ids, bad_words, min_tokens, logit_bias or "
    "penalties leave none with a finite logit"
)
NO_WAY_ON = "structured_outputs can go no further"


class ModelRunner:
    """Runs one model's steps.

    Args:
        model: in eval mode.
        config: resolved.
        kv: the KV cache, one tensor [2, blocks, kv_heads, block_size, head_dim] for each layer.
        pooler: makes vectors, for requests that ask for one.
    """

    def __init__(
        self,
        model: CausalLM,
        config: EngineConfig,
        kv: Sequence[torch.Tensor],
        pooler: Pooler | None = None,
    ) -> None:
        self._model = model
        self._pooler = pooler
        assert config.max_model_len is not None
        max_blocks = -(-config.max_model_len // config.block_size)
        self._replay = Replay(model, kv, max_blocks, enabled=not config.enforce_eager)
        self._filler = MaskFiller()
        self._requests = RequestTable(config.block_size, model.spec.vocab_size, kv[0].device)

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        """Compute the plan's chunks and choose the tokens that follow.

        A request whose logits are of no use is reported in `StepResult.failed`, without a token. If this
        raises, nothing is kept of the step that admitting its requests again does not replace.
        """
        self._requests.apply(plan)
        result = StepResult(plan.step)
        if not plan.chunks:
            return result
        batch = self._requests.build(plan)
        structure = Structure(batch.sampled, batch.ids.device, self._filler)
        hidden, logits = self._replay.run(batch)
        for span in batch.prompt_spans:
            self._report_prompt(span, hidden, result)
        if batch.pool_spans:
            self._pool(batch.pool_spans, hidden, result)
        if logits is not None:
            self._choose(batch, logits, structure, result)
        return result

    def _choose(
        self, batch: Batch, logits: torch.Tensor, structure: Structure, result: StepResult
    ) -> None:
        """Choose and append a token for every sampled request; `logits` are changed in place."""
        states = batch.sampled
        peaks, tokens = _peaks(logits)
        failed = {i: f"{NO_WAY_ON}: {why}" for i, why in structure.errors.items()}
        failed |= {i: NOT_FINITE for i, peak in enumerate(peaks) if not math.isfinite(peak)}
        result.num_not_finite += len(failed)
        asked = [
            i
            for i, state in enumerate(states)
            if state.params.logprobs is not None and i not in failed
        ]
        raw = logits[asked] if asked else None
        if raw is not None:
            structure.restrict(raw, asked)
        ruled = [
            (i, state.rules)
            for i, state in enumerate(states)
            if state.rules is not None and i not in failed
        ]
        changed = sorted({i for i, _ in ruled}.union(structure.rows) - failed.keys())
        if changed:
            both = structure.among([i for i, _ in ruled])
            before = logits[both] if both else None
            if ruled:
                apply_rules(logits, ruled)
            structure.restrict(logits)
            if before is not None:
                structure.lift_bans(logits, both, before)
            whole = len(changed) == len(states)
            peaks, chosen = _peaks(logits if whole else logits[changed])
            for row, peak, token in zip(changed, peaks, chosen, strict=True):
                tokens[row] = token
                if not math.isfinite(peak):
                    failed[row] = NOTHING_LEFT
        drawn = [i for i, state in enumerate(states) if not state.params.greedy and i not in failed]
        if drawn:
            picked = logits if len(drawn) == len(states) else logits[drawn]
            for i, token in zip(drawn, _draw(picked, [states[i] for i in drawn]), strict=True):
                tokens[i] = token
        for i, state in enumerate(states):
            if closing := closing_tokens(state):  # a thought that may have no token at all
                tokens[i] = closing[0]
            if i in failed:
                result.failed[state.request_id] = failed[i]
            elif state.request_id not in result.failed:
                result.tokens[state.request_id] = self._requests.append(state, tokens[i])
        if raw is not None:
            _report(raw, [states[i] for i in asked], [tokens[i] for i in asked], result)

    def _pool(self, spans: Sequence[PoolSpan], hidden: torch.Tensor, result: StepResult) -> None:
        """Read off what the chunks have; whose prompt ends here gets its vector."""
        ended: list[tuple[RequestState, Pooling, torch.Tensor]] = []
        for span in spans:
            state = span.state
            assert state.gather is not None and state.pooling is not None
            state.gather.add(hidden[span.rows], span.start)
            if span.ends:
                ended.append((state, state.pooling, state.gather.vector()))
        if not ended:
            return
        states, poolings, vectors = zip(*ended, strict=True)
        assert self._pooler is not None, "the engine takes no such request without one"
        made = self._pooler.finish(vectors, poolings)
        for state, vector in zip(states, made, strict=True):
            if vector is None:
                result.failed[state.request_id] = NOT_FINITE
                result.num_not_finite += 1
            else:
                result.pooled[state.request_id] = vector

    def _report_prompt(self, span: PromptSpan, hidden: torch.Tensor, result: StepResult) -> None:
        count = span.state.params.prompt_logprobs
        assert count is not None
        rows = max(1, PROMPT_LOGITS // self._model.spec.vocab_size)
        entries: list[TokenLogprobs] = []
        for start in range(0, len(span.token_ids), rows):
            token_ids = span.token_ids[start : start + rows]
            first = span.first_row + start
            logits = self._model.logits(hidden[first : first + len(token_ids)])
            if not all(math.isfinite(peak) for peak in _peaks(logits)[0]):
                result.failed[span.state.request_id] = NOT_FINITE
                result.num_not_finite += 1
                return
            entries += token_logprobs(logits, token_ids, [count] * len(token_ids))
        result.prompt_logprobs[span.state.request_id] = entries


def _peaks(logits: torch.Tensor) -> tuple[list[float], list[int]]:
    """Of each row the greatest logit, which is NaN if any is, and the first token that has it."""
    values, tokens = ops.row_peaks(logits)
    return values.tolist(), tokens.tolist()


def _draw(logits: torch.Tensor, states: Sequence[RequestState]) -> list[int]:
    draws = uniforms(
        [state.seed for state in states], [state.num_output_tokens for state in states]
    )
    token_ids: list[int] = sample(logits, [state.params for state in states], draws).tolist()
    return token_ids


def _report(
    raw: torch.Tensor,
    states: Sequence[RequestState],
    token_ids: Sequence[int],
    result: StepResult,
) -> None:
    """Add the log-probabilities of the chosen tokens and of those forced after them.

    Requests that failed have none. Under a grammar, what it does not allow is not listed.
    """
    counts = [state.params.logprobs or 0 for state in states]
    entries = token_logprobs(raw, token_ids, counts)
    for state, count, entry in zip(states, counts, entries, strict=True):
        chosen = result.tokens.get(state.request_id)
        if chosen is None:
            continue
        if state.matcher is not None:
            entry = without_banned(entry)
        forced = [certain(token_id, count) for token_id in chosen[1:]]
        result.logprobs[state.request_id] = [entry, *forced]
