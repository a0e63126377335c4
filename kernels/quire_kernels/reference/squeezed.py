"""Bfloat16 weights in 12 bits each, exactly.

The lower byte of a weight looks random, but not the upper one, which is the sign and seven bits of the
exponent: nearly all weights of a matrix share fourteen values of it. So each block of 16 outputs is stored as
a record of bytes:

    base, count     uint16 each, then four bytes of nothing
    patches         room for `capacity` of them: uint32 place, uint16 weight, two bytes of nothing
    groups          192 bytes for 8 inputs of the block's 16 outputs: 128 lower bytes, then 64 bytes of
                    codes for the upper ones, four bits each

A code is the sign and three bits, which are 0 where the rest of the upper byte is 0 and else say how far it
is above `base`. A weight that has no code is a patch, and zero in its group. In a group, the packed
layout's steps 0 and 1 stand in the first 64 bytes, eight bytes of one and eight of the other in turn, and 2
and 3 in the second 64; the codes of the first 64 are the lower halves of bytes, those of the second the
upper ones. What is stored comes back bit by bit. The idea is that of "70% Size, 100% Accuracy: Lossless LLM
Compression" (Zhang et al., 2025), with codes of one length, which a CPU unfolds faster than its memory
brings them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from quire_kernels.reference.linear import BLOCK, empty_packed, pack_rows, unpack

CODES = 7
_GROUP = 8  # inputs
_GROUP_BYTES = 192
_STEPS = 4  # of a group; a step is two inputs of 16 outputs


def record_sizes(in_features: int) -> tuple[int, int, int]:
    """Of a block's record: groups, patches that it has room for, bytes of what stands before the groups."""
    groups = -(-in_features // _GROUP)
    capacity = groups // 16 * 8 + 7
    return groups, capacity, 8 + 8 * capacity


def empty_squeezed(out_features: int, in_features: int, device: torch.device) -> torch.Tensor:
    """A squeezed weight whose rows are still to be put in: uint8, [blocks, bytes of a record].

    What is not put in yet is unknown, but can be unfolded.
    """
    groups, _, head = record_sizes(in_features)
    shape = (-(-out_features // BLOCK), head + groups * _GROUP_BYTES)
    squeezed = torch.empty(shape, dtype=torch.uint8, device=device)
    squeezed[:, :head] = 0
    return squeezed


def squeeze_rows(squeezed: torch.Tensor, rows: torch.Tensor, first: int) -> bool:
    """Put rows into a squeezed weight; the rest of the last block that they begin becomes zero.

    Args:
        squeezed: as `empty_squeezed` makes it; written.
        rows: bfloat16 [n, in_features], of any strides.
        first: place of the first row, a multiple of 16.

    Returns:
        Whether every block had room for its patches. If not, `squeezed` is of no use.
    """
    in_features = rows.shape[1]
    groups, capacity, head = record_sizes(in_features)
    packed = empty_packed(len(rows), groups * _GROUP, torch.bfloat16, rows.device)
    pack_rows(packed, F.pad(rows, (0, groups * _GROUP - in_features)), 0)
    fits = True
    for index, block in enumerate(packed.view(torch.int16)):
        words = _in_turn(block.int().view(groups, 2, 2, 2 * BLOCK) & 0xFFFF)
        rest = words >> 8 & 0x7F  # of the upper byte
        base = _best_base((block[::_STEPS].int() & 0x7FFF) >> 8)
        coded = (rest == 0) | (rest > base) & (rest <= base + CODES)
        codes = words >> 12 & 8 | torch.where(rest > 0, rest - base, 0)
        codes = torch.where(coded, codes, 0)
        low = torch.where(coded, words & 0xFF, 0)
        pairs = codes[:, 0] | codes[:, 1] << 4
        record = squeezed[first // BLOCK + index]
        record[head:] = torch.cat([low.flatten(1), pairs], 1).flatten().to(torch.uint8)
        places = (~_in_order(coded)).flatten().nonzero()[:, 0]
        fits = fits and len(places) <= capacity
        places = places[:capacity]
        counts = record[:4].view(torch.int16)
        counts[0], counts[1] = base, len(places)
        patches = record[8 : 8 + 8 * len(places)].view(-1, 8)
        patches[:, :4] = places.int().view(torch.uint8).view(-1, 4)
        patches[:, 4:6] = block.flatten()[places].view(torch.uint8).view(-1, 2)
    return fits


def _in_turn(steps: torch.Tensor) -> torch.Tensor:
    """Pairs of steps as a group has them: [groups, 2, 2, 32] -> [groups, 2, 64]."""
    return steps.view(-1, 2, 2, 4, 8).transpose(2, 3).flatten(2)


def _in_order(pairs: torch.Tensor) -> torch.Tensor:
    """The reverse: [groups, 2, 64] -> [groups, 2, 2, 32]."""
    return pairs.view(-1, 2, 4, 2, 8).transpose(2, 3).flatten(3)


def _best_base(rests: torch.Tensor) -> int:
    """The base of the seven that most of these upper bytes are, but for the sign; of equals, the lowest."""
    sums = torch.bincount(rests.flatten(), minlength=128).cumsum(0)
    inside = sums[CODES:] - sums[:-CODES]  # [base]
    return int((inside == inside.max()).nonzero()[0])


def unsqueeze(squeezed: torch.Tensor, out_features: int, in_features: int) -> torch.Tensor:
    """bfloat16 [out_features, in_features] of a squeezed weight."""
    groups, _, head = record_sizes(in_features)
    blocks = len(squeezed)
    stored = squeezed[:, head:].int().view(blocks * groups, 3, 4 * BLOCK)
    heads = squeezed[:, :4].contiguous().view(torch.int16)
    codes = torch.stack([stored[:, 2] & 15, stored[:, 2] >> 4], 1)
    bases = heads[:, 0].int().repeat_interleave(groups).view(-1, 1, 1)
    rest = torch.where(codes & 7 > 0, (codes & 7) + bases, 0)
    words = _in_order(stored[:, :2] | rest << 8 | (codes & 8) << 12).to(torch.int16)
    packed = words.view(blocks, groups * _STEPS, BLOCK, 2)
    for index, count in enumerate(heads[:, 1].tolist()):
        patches = squeezed[index, 8 : 8 + 8 * count].view(-1, 8)
        places = patches[:, :4].contiguous().view(torch.int32)[:, 0].long()
        packed[index].view(-1)[places] = patches[:, 4:6].contiguous().view(torch.int16)[:, 0]
    return unpack(packed.view(torch.bfloat16), out_features, in_features)


def squeezed_linear(
    x: torch.Tensor,
    squeezed: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """x @ weight.T + bias, added up in float32 and rounded once: what `packed_linear` gives, to the bit.

    Args:
        x: bfloat16 [..., in_features].
        squeezed: as `squeeze_rows` leaves it.
        out_features: rows of the weight.
        bias: [out_features], of x's dtype.
        out_dtype: of the result; default: x's.

    Returns:
        [..., out_features].
    """
    weight = unsqueeze(squeezed, out_features, x.shape[-1])
    added = None if bias is None else bias.float()
    return F.linear(x.float(), weight.float(), added).to(out_dtype or x.dtype)


def squeezed_embedding(
    ids: torch.Tensor, squeezed: torch.Tensor, num_rows: int, hidden_size: int
) -> torch.Tensor:
    """Rows of a squeezed table: int64 [tokens] -> bfloat16 [tokens, hidden_size].

    Raises:
        IndexError: an id that is no row.
    """
    return F.embedding(ids, unsqueeze(squeezed, num_rows, hidden_size))
