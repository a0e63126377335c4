"""Attention of encoders beside a softmax written out, for packed batches of every mixture of lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quire_kernels import dispatch as ops
from quire_kernels.metadata import EncoderMetadata

HEADS, HEAD_DIM, SCALE = 3, 8, 0.4


def written_out(query, key, value, window, bias):
    """One sequence: [tokens, heads, head_dim]."""
    scores = torch.einsum("ihd,jhd->hij", query.double(), key.double()) * SCALE
    length = len(query)
    if bias is not None:
        scores = scores + bias[:, :length, :length]
    if window is not None:
        position = torch.arange(length)
        scores[:, (position[:, None] - position).abs() > window] = -torch.inf
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1), value.double()).float()


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=8).map(sorted),
    st.sampled_from([None, 0, 1, 5]),
    st.booleans(),
)
def test_packed_batches(lengths, window, with_bias):
    generator = torch.Generator().manual_seed(sum(lengths))
    total = sum(lengths)
    packed = torch.randn(total, 3 * HEADS, HEAD_DIM, generator=generator)
    query, key, value = packed.split(HEADS, dim=1)  # with gaps, as a merged projection gives them
    bias = torch.randn(HEADS, 20, 20, generator=generator) if with_bias else None
    groups = tuple((lengths.count(n), n) for n in sorted(set(lengths)))
    found = ops.bidirectional_attention(
        query, key, value, EncoderMetadata(groups), scale=SCALE, window=window, bias=bias
    )
    parts = zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True)
    expected = torch.cat([written_out(*part, window, bias) for part in parts])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    query, key, value = torch.randn(3, 12, HEADS, HEAD_DIM, dtype=dtype).unbind()
    found = ops.bidirectional_attention(
        query, key, value, EncoderMetadata(((2, 6),)), scale=SCALE, window=2
    )
    assert found.dtype == dtype
    whole = ops.bidirectional_attention(
        query.float(), key.float(), value.float(), EncoderMetadata(((2, 6),)), scale=SCALE, window=2
    )
    torch.testing.assert_close(found.float(), whole, atol=0.03, rtol=0)
