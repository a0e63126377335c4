"""One step of an encoder: from a `StepPlan` to a `StepResult`.

A text is computed in the step that admits it, so nothing is kept between steps: no tables, no cache.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import torch

from quire.models.encoder import Encoder
from quire.plan import Admission, StepPlan, StepResult
from quire.runner.pooler import Gather, Pooler
from quire_kernels.metadata import EncoderMetadata

NOT_FINITE = (
    "the model gave NaN or infinite numbers for this text: its weights may be damaged, or its activations "
    "may overflow; try dtype='float32' or 'bfloat16'"
)


class EncoderRunner:
    """Runs one encoder's steps.

    Args:
        model: in eval mode.
        pooler: makes vectors, or scores.
    """

    def __init__(self, model: Encoder, pooler: Pooler) -> None:
        self._model = model
        self._pooler = pooler
        self._device = model.device

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        """Compute the plan's texts, packed: one after the other, equal lengths together, none padded."""
        result = StepResult(plan.step)
        if not plan.chunks:
            return result
        texts = sorted(plan.admitted, key=lambda text: len(text.token_ids))
        assert len(texts) == len(plan.chunks), "every text is admitted and computed in one step"
        lengths = [len(text.token_ids) for text in texts]
        groups = tuple((len(list(same)), length) for length, same in groupby(lengths))
        hidden = self._model(
            self._tensor(np.concatenate([text.token_ids for text in texts])),
            self._tensor(np.concatenate([np.arange(length) for length in lengths])),
            self._tensor(np.concatenate([_segments(text) for text in texts])),
            EncoderMetadata(groups),
        )
        gathered, poolings = [], []
        for text, rows in zip(texts, hidden.split(lengths), strict=True):
            assert text.pooling is not None, "an encoder generates nothing"
            gather = Gather(text.pooling)
            gather.add(rows, 0)
            gathered.append(gather.vector())
            poolings.append(text.pooling)
        for text, vector in zip(texts, self._pooler.finish(gathered, poolings), strict=True):
            if vector is None:
                result.failed[text.request_id] = NOT_FINITE
                result.num_not_finite += 1
            else:
                result.pooled[text.request_id] = vector
        return result

    def _tensor(self, array: np.ndarray[tuple[int], np.dtype[np.int64]]) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64, copy=False)).to(self._device)


def _segments(text: Admission) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """0 for each token of the first text, 1 for those of the second one of a pair."""
    segments = np.zeros(len(text.token_ids), np.int64)
    if text.segment_start is not None:
        segments[text.segment_start :] = 1
    return segments
