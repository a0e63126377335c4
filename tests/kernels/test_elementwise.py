"""Norms, activations and rotary embedding against their formulas."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from quire_kernels import dispatch as ops
from quire_kernels import reference


def test_rms_norm():
    x, weight = torch.randn(5, 8), torch.randn(8)
    expected = x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * weight
    torch.testing.assert_close(ops.rms_norm(x, weight, 1e-5), expected)


def test_add_rms_norm_returns_the_norm_and_the_sum():
    x, residual, weight = torch.randn(5, 8), torch.randn(5, 8), torch.randn(8)
    normed, total = ops.add_rms_norm(x, residual, weight, 1e-6)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(normed, ops.rms_norm(x + residual, weight, 1e-6))


def test_norms_are_taken_in_float32_and_returned_in_the_input_dtype():
    x = torch.full((1, 8), 300.0, dtype=torch.float16)  # its square overflows float16
    assert ops.rms_norm(x, torch.ones(8), 1e-6).tolist() == [[1.0] * 8]
    assert ops.layer_norm(x, torch.ones(8), torch.ones(8), 1e-6).dtype == torch.float16


def test_layer_norm():
    x, weight, bias = torch.randn(5, 8), torch.randn(8), torch.randn(8)
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    expected = centred / torch.sqrt(variance + 1e-5) * weight + bias
    torch.testing.assert_close(ops.layer_norm(x, weight, bias, 1e-5), expected)


def test_gated_activations():
    x = torch.randn(5, 12)
    gate, up = x[:, :6], x[:, 6:]
    torch.testing.assert_close(ops.silu_and_mul(x), gate / (1 + torch.exp(-gate)) * up)
    exact = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    torch.testing.assert_close(ops.gelu_and_mul(x), exact * up)
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    torch.testing.assert_close(
        ops.gelu_and_mul(x, "tanh"), 0.5 * gate * (1 + torch.tanh(inner)) * up
    )


@pytest.mark.parametrize("rotary_dim", [4, 8])
def test_rotary_embedding_rotates_pairs_and_leaves_the_rest(rotary_dim):
    query, key = torch.randn(3, 2, 8), torch.randn(3, 1, 8)
    angles = torch.randn(3, rotary_dim // 2)
    found = ops.rotary_embedding(query, key, torch.cat([angles.cos(), angles.sin()], dim=-1))
    for before, after in zip((query, key), found, strict=True):
        half = rotary_dim // 2
        pairs = torch.complex(before[..., :half], before[..., half:rotary_dim])
        turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
        torch.testing.assert_close(after[..., :half], turned.real)
        torch.testing.assert_close(after[..., half:rotary_dim], turned.imag)
        assert torch.equal(after[..., rotary_dim:], before[..., rotary_dim:])


@pytest.mark.parametrize("name", reference.__all__)
def test_dispatch_has_every_reference_operation_under_the_same_signature(name):
    assert inspect.signature(getattr(ops, name)) == inspect.signature(getattr(reference, name))
    assert ops.find(name, "cpu") is getattr(reference, name)
