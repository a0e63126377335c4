"""Linear layers and embeddings whose weights are packed for matrix units of a CPU.

A weight [out_features, in_features] is cut into blocks of 16 outputs and steps of `width` inputs, and
lies as [blocks, steps, 16, width]: what one instruction multiplies stands together, and a row of
activations meets the weights in the order of its inputs. Outputs and inputs are filled up with zeros.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

BLOCK = 16
GROUP = 32  # inputs that share a scale, in int8
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


def embedding(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rows of a plain table: int64 [...] and [rows, hidden_size] -> [..., hidden_size].

    Raises:
        IndexError: an id is no row.
    """
    return F.embedding(ids, table)


def packed_embedding(
    ids: torch.Tensor, packed: torch.Tensor, num_rows: int, hidden_size: int
) -> torch.Tensor:
    """Rows of a packed table: int64 [tokens] -> [tokens, hidden_size].

    Raises:
        IndexError: an id that is no row.
    """
    return F.embedding(ids, unpack(packed, num_rows, hidden_size))


def empty_scales(out_features: int, in_features: int, device: torch.device) -> torch.Tensor:
    """Scales of an int8 weight, all zero: bfloat16, [blocks, groups, 16]."""
    blocks, groups = -(-out_features // BLOCK), -(-in_features // GROUP)
    return torch.zeros(blocks, groups, BLOCK, dtype=torch.bfloat16, device=device)


def unpack_scales(scales: torch.Tensor, out_features: int) -> torch.Tensor:
    """float32, [out_features, groups]."""
    return scales.transpose(1, 2).reshape(-1, scales.shape[1])[:out_features].float()


def quantize_rows(
    rows: torch.Tensor, first: int, packed: torch.Tensor, scales: torch.Tensor
) -> None:
    """Put rows into a packed int8 weight.

    A group's scale is what makes its largest number 127, rounded up to a bfloat16.

    Args:
        rows: [n, in_features], any float dtype and strides.
        first: place of the first row.
        packed: uint8; written.
        scales: as `empty_scales` makes them, what one of a group's integers stands for; written.
    """
    groups = _groups(rows)
    largest = groups.abs().amax(-1, keepdim=True)
    scale = _rounded_up(largest / 127)
    integers = _rounded(groups, scale).flatten(1)[:, : rows.shape[1]]
    pack_rows(packed, (integers + 128).to(torch.uint8), first)
    index = torch.arange(first, first + len(rows), device=scales.device)
    scales[index // BLOCK, :, index % BLOCK] = scale[..., 0].to(torch.bfloat16)


def int8_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """x @ weight.T + bias with x quantized: each group of 32 inputs of a row has a scale of its own.

    The sums within a group are exact; those of the groups are added up in float32.

    Args:
        x: [..., in_features], any float dtype.
        packed: uint8, as `quantize_rows` leaves it.
        scales: likewise.
        out_features: rows of the weight.
        bias: [out_features], of x's dtype.
        out_dtype: of the result; default: x's.

    Returns:
        [..., out_features].
    """
    weight = _groups(unpack(packed, out_features, x.shape[-1]).float() - 128)
    weight_scales = unpack_scales(scales, out_features)
    groups = _groups(x)
    largest = groups.abs().amax(-1, keepdim=True)
    steps = largest / 127
    rounded = _rounded(groups, steps)
    total = torch.zeros(*x.shape[:-1], out_features, device=x.device)
    for index in range(groups.shape[-2]):
        # Below 2^24, float32 holds integers and their sums exactly.
        exact = rounded[..., index, :] @ weight[:, index].T
        scale = steps[..., index, :] * weight_scales[:, index]
        # As by fused multiply and add: rounded once.
        total = (total.double() + exact.double() * scale.double()).float()
    if bias is not None:
        total = total + bias.float()
    return total.to(out_dtype or x.dtype)


def int8_embedding(
    ids: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    num_rows: int,
    hidden_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Rows of a packed int8 table in `dtype`: int64 [tokens] -> [tokens, hidden_size].

    Raises:
        IndexError: an id that is no row.
    """
    rows = F.embedding(ids, unpack(packed, num_rows, hidden_size)).float() - 128
    row_scales = F.embedding(ids, unpack_scales(scales, num_rows))
    return (_groups(rows) * row_scales[..., None]).flatten(-2)[..., :hidden_size].to(dtype)


def _groups(x: torch.Tensor) -> torch.Tensor:
    """[..., n] -> float32 [..., groups, GROUP], filled up with zeros."""
    padded = F.pad(x.float(), (0, -x.shape[-1] % GROUP))
    return padded.view(*x.shape[:-1], padded.shape[-1] // GROUP, GROUP)


def _rounded(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x / scale in whole numbers, in float32; halves go to the even one."""
    factor = torch.where(scale > 0, 1 / scale, 0.0)
    return (x.double() * factor.double()).round().float()


def _rounded_up(x: torch.Tensor) -> torch.Tensor:
    """The least bfloat16 that is no less than x, in float32; x is not negative."""
    return ((x.view(torch.int32) + 0xFFFF) >> 16 << 16).view(torch.float32)
