"""What attention must know of a batch. Made once a step by the runner, read by every layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """A mixed batch of sequences: each brings one or more new tokens on top of cached ones.

    The tokens of all sequences lie one after the other; sequence `s` owns rows
    `query_start[s]:query_start[s + 1]`, which are its last positions: the rows' positions are
    `seq_lens[s] - query_len .. seq_lens[s] - 1`. New keys and values are written to `slots` first, then
    every row attends to its own sequence's positions up to and including its own. A block may stand in
    the tables of several sequences (a shared prefix), also when it is written in this very step.

    Args:
        query_start: int32, [sequences + 1], first row of each sequence, then the number of rows.
        seq_lens: int32, [sequences], tokens of each sequence including the new ones.
        block_tables: int32, [sequences, max_blocks], block ids in order; what lies beyond a sequence's
            length is any valid id.
        slots: int64, [tokens], `block_id * block_size + offset` where each row's key and value go.
        max_query_len: rows of the longest sequence.
        max_seq_len: tokens of the longest sequence.
    """

    query_start: torch.Tensor
    seq_lens: torch.Tensor
    block_tables: torch.Tensor
    slots: torch.Tensor
    max_query_len: int
    max_seq_len: int


@dataclass(frozen=True, slots=True)
class EncoderMetadata:
    """A batch of whole sequences for an encoder: all tokens one after the other, shorter sequences first.

    Args:
        groups: (number of sequences, tokens of each), in the order in which they lie; lengths ascend.
    """

    groups: tuple[tuple[int, int], ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.groups[-1][1]
