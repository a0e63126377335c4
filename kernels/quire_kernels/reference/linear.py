"""Linear layers and embeddings whose weights are packed for matrix units of a CPU.

A weight [out_features, in_features] is cut into blocks of 16 outputs and steps of `width` inputs, and
lies as [blocks, steps, 16, width]: what one instruction multiplies stands together, and a row of
activations meets the weights in the order of its inputs. Outputs and inputs are filled up with zeros.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

BLOCK = 16
GROUP = 128  # inputs that share one scale of int8 activations
_WIDTHS = {torch.bfloat16: 2, torch.float16: 1, torch.float32: 1, torch.uint8: 4}


def packed_shape(
    out_features: int, in_features: int, dtype: torch.dtype
) -> tuple[int, int, int, int]:
    """Shape of a packed weight; uint8 is int8 with 128 added, so that all are positive."""
    width = _WIDTHS[dtype]
    return (-(-out_features // BLOCK), -(-in_features // width), BLOCK, width)


def empty_packed(
    out_features: int, in_features: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A packed weight whose rows are still to be put in; its padding is zero.

    The rest is left untouched, so that it takes up memory only as it is filled.
    """
    shape = packed_shape(out_features, in_features, dtype)
    packed = torch.empty(shape, dtype=dtype, device=device)
    packed[out_features // BLOCK :].zero_()
    packed[:, in_features // shape[-1] :].zero_()
    return packed


def pack_rows(packed: torch.Tensor, rows: torch.Tensor, first: int) -> None:
    """Put `rows` [n, in_features], of any strides, into a packed weight of their dtype from `first` on."""
    blocks, steps, _, width = packed.shape
    count, in_features = rows.shape
    index = torch.arange(first, first + count, device=packed.device)
    whole = torch.zeros(count, steps * width, dtype=packed.dtype, device=packed.device)
    whole[:, :in_features] = rows
    packed.transpose(1, 2).view(blocks, BLOCK, steps, width)[index // BLOCK, index % BLOCK] = (
        whole.view(count, steps, width)
    )


def unpack(packed: torch.Tensor, out_features: int, in_features: int) -> torch.Tensor:
    """[out_features, in_features] of a packed weight."""
    blocks, steps, _, width = packed.shape
    plain = packed.transpose(1, 2).reshape(blocks * BLOCK, steps * width)
    return plain[:out_features, :in_features]


def packed_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """x @ weight.T + bias, added up in float32 and rounded once.

    Args:
        x: [..., in_features].
        packed: as `packed_shape` has it, of x's dtype.
        out_features: rows of the weight.
        bias: [out_features], of x's dtype.
        out_dtype: of the result; default: x's.

    Returns:
        [..., out_features].
    """
    weight = unpack(packed, out_features, x.shape[-1])
    added = None if bias is None else bias.float()
    return F.linear(x.float(), weight.float(), added).to(out_dtype or x.dtype)


def packed_embedding(
    ids: torch.Tensor, packed: torch.Tensor, num_rows: int, hidden_size: int
) -> torch.Tensor:
    """Rows of a packed table: int64 [tokens] -> [tokens, hidden_size].

    Raises:
        IndexError: an id that is no row.
    """
    return F.embedding(ids, unpack(packed, num_rows, hidden_size))


def quantize_rows(
    rows: torch.Tensor, first: int, packed: torch.Tensor, scales: torch.Tensor
) -> None:
    """Put rows into a packed int8 weight: the largest of each row becomes 127 or -127.

    Args:
        rows: [n, in_features], any float dtype and strides.
        first: place of the first row.
        packed: uint8; written.
        scales: float32, [out_features], what one of a row's integers stands for; written.
    """
    rows = rows.float()
    largest = rows.abs().amax(1)
    pack_rows(packed, (_rounded(rows, largest[:, None]) + 128).to(torch.uint8), first)
    scales[first : first + len(rows)] = largest / 127


def int8_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """x @ weight.T + bias with x quantized: each group of 128 inputs of a row has a scale of its own.

    The sums within a group are exact; those of the groups are added up in float32.

    Args:
        x: [..., in_features], any float dtype.
        packed: uint8, as `quantize_rows` leaves it.
        scales: float32, [out_features].
        bias: [out_features], of x's dtype.
        out_dtype: of the result; default: x's.

    Returns:
        [..., out_features].
    """
    in_features, out_features = x.shape[-1], scales.shape[0]
    padding = (0, -in_features % GROUP)
    weight = F.pad(unpack(packed, out_features, in_features).float() - 128, padding)
    groups = F.pad(x.float(), padding).view(*x.shape[:-1], -1, GROUP)
    largest = groups.abs().amax(-1, keepdim=True)
    rounded, step = _rounded(groups, largest), largest / 127
    total = torch.zeros(*x.shape[:-1], out_features, device=x.device)
    for index in range(groups.shape[-2]):
        # Below 2^24, float32 holds integers and their sums exactly.
        exact = rounded[..., index, :] @ weight[:, index * GROUP : (index + 1) * GROUP].T
        # As by fused multiply and add: rounded once.
        total = (total.double() + exact.double() * step[..., index, :].double()).float()
    total = total * scales
    if bias is not None:
        total = total + bias.float()
    return total.to(out_dtype or x.dtype)


def int8_embedding(
    ids: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    hidden_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Rows of a packed int8 table in `dtype`: int64 [tokens] -> [tokens, hidden_size].

    Raises:
        IndexError: an id that is no row.
    """
    table = unpack(packed, scales.shape[0], hidden_size)
    rows = F.embedding(ids, table).float() - 128
    return (rows * scales[ids, None]).to(dtype)


def _rounded(x: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Integers from -127 to 127, in float32; halves go to the even one."""
    factor = torch.where(largest > 0, torch.full_like(largest, 127.0) / largest, 0.0)
    return (x.double() * factor.double()).round().float()
