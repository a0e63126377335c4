"""Decoding steps run again from a record, without Python between their operations.

The first step in which each of n sequences has one token, and gets the next, is recorded while the model
runs. Later ones put their inputs where that step's lay and replay it: same operations, same memory, other
numbers. Owns the inputs' and the records' memory. It knows no model; one that computes anything beyond
recorded operations is run as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from quire.models.base import CausalLM
from quire.runner.batch import Batch
from quire_kernels import dispatch as ops
from quire_kernels.metadata import AttentionMetadata

logger = logging.getLogger(__name__)

# Sequences of the largest step that is recorded: what Python costs beyond is little beside the rest.
MOST_ROWS = 64
# Bytes that the results of all records share; untouched ones take no memory.
ARENA = 1 << 28


class Replay:
    """Runs a model, from a record where there is one.

    Args:
        model: in eval mode.
        kv: per layer, as `CausalLM.forward` takes it.
        max_blocks: width of the widest block table.
        enabled: False to run the model in every step.
    """

    def __init__(
        self, model: CausalLM, kv: Sequence[torch.Tensor], max_blocks: int, *, enabled: bool = True
    ) -> None:
        self._model = model
        self._kv = kv
        self._recorder = ops.recorder(kv[0].device.type) if enabled else None
        if self._recorder is None:
            return
        self._arena = self._recorder.Arena(ARENA)
        self._records: dict[int, tuple[ops.Program, torch.Tensor, torch.Tensor]] = {}
        self._ids = torch.empty(MOST_ROWS, dtype=torch.int64)
        self._positions = torch.empty(MOST_ROWS, dtype=torch.int64)
        self._slots = torch.empty(MOST_ROWS, dtype=torch.int64)
        self._seq_lens = torch.empty(MOST_ROWS, dtype=torch.int32)
        self._query_start = torch.arange(MOST_ROWS + 1, dtype=torch.int32)
        self._tables = torch.full((MOST_ROWS, max_blocks), 0, dtype=torch.int32)

    def run(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run a step; both results are good until the next call.

        Returns:
            Hidden states after the final norm, [tokens, hidden_size], and the logits that tokens are sampled
            from, float32 [sampled, vocab_size]; None where none are.
        """
        rows = len(batch.ids)
        if self._recorder is None or rows > MOST_ROWS or len(batch.sampled) != rows:
            hidden = self._model(batch.ids, batch.positions, self._kv, batch.meta)
            if not batch.sampled:
                return hidden, None
            return hidden, self._model.logits(hidden[batch.sample_rows])
        self._take_inputs(batch, rows)
        if rows in self._records:
            program, hidden, logits = self._records[rows]
            program.run()
            return hidden, logits
        return self._record(batch, rows)

    def _take_inputs(self, batch: Batch, rows: int) -> None:
        tables = batch.meta.block_tables
        self._ids[:rows] = batch.ids
        self._positions[:rows] = batch.positions
        self._slots[:rows] = batch.meta.slots
        self._seq_lens[:rows] = batch.meta.seq_lens
        self._tables[:rows, : tables.shape[1]] = tables

    def _record(self, batch: Batch, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._recorder is not None
        meta = AttentionMetadata(
            query_start=self._query_start[: rows + 1],
            seq_lens=self._seq_lens[:rows],
            block_tables=self._tables[:rows],
            slots=self._slots[:rows],
            max_query_len=1,
            max_seq_len=batch.meta.max_seq_len,
        )
        with self._recorder.recording(self._arena) as record:
            hidden = self._model(self._ids[:rows], self._positions[:rows], self._kv, meta)
            logits = self._model.logits(hidden)
        if record.foreign is not None:
            logger.debug("steps are not replayed: the model uses %s", record.foreign)
            self._recorder = None
        else:
            self._records[rows] = record.program(), hidden, logits
        return hidden, logits
