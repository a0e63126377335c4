"""Norms, activations and rotary embedding against their formulas, in each implementation."""

from __future__ import annotations

import inspect
import math
import os

import pytest
import torch

from kernel_implementations import IMPLEMENTATIONS
from quire_kernels import cpu, dispatch, reference

pytestmark = pytest.mark.parametrize("ops", IMPLEMENTATIONS)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def test_rms_norm(ops):
    x, weight = torch.randn(5, 8), torch.randn(8)
    expected = x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * weight
    torch.testing.assert_close(ops.rms_norm(x, weight, 1e-5), expected)


def test_add_rms_norm_returns_the_norm_and_the_sum(ops):
    x, residual, weight = torch.randn(5, 8), torch.randn(5, 8), torch.randn(8)
    normed, total = ops.add_rms_norm(x, residual, weight, 1e-6)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(normed, ops.rms_norm(x + residual, weight, 1e-6))


def test_norms_are_taken_in_float32_and_returned_in_the_input_dtype(ops):
    x = torch.full((1, 8), 300.0, dtype=torch.float16)  # its square overflows float16
    assert ops.rms_norm(x, torch.ones(8), 1e-6).tolist() == [[1.0] * 8]
    assert ops.layer_norm(x, torch.ones(8), torch.ones(8), 1e-6).dtype == torch.float16


def test_layer_norm(ops):
    x, weight, bias = torch.randn(5, 8), torch.randn(8), torch.randn(8)
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    expected = centred / torch.sqrt(variance + 1e-5) * weight + bias
    torch.testing.assert_close(ops.layer_norm(x, weight, bias, 1e-5), expected)


def test_gated_activations(ops):
    x = torch.randn(5, 12)
    gate, up = x[:, :6], x[:, 6:]
    torch.testing.assert_close(ops.silu_and_mul(x), gate / (1 + torch.exp(-gate)) * up)
    exact = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    torch.testing.assert_close(ops.gelu_and_mul(x), exact * up)
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    torch.testing.assert_close(
        ops.gelu_and_mul(x, "tanh"), 0.5 * gate * (1 + torch.tanh(inner)) * up
    )


def heads(tokens, count, head_dim, dtype=torch.float32):
    """Three parts of a merged projection: rows with gaps between them."""
    return torch.randn(tokens, sum(count), head_dim).to(dtype).split(count, dim=1)


@pytest.mark.parametrize("rotary_dim", [4, 8])
def test_rotary_positions_turn_pairs_and_leave_the_rest(ops, rotary_dim):
    query, key, value = heads(3, (2, 1, 1), 8)
    angles = torch.randn(3, rotary_dim // 2)
    cos_sin = torch.cat([angles.cos(), angles.sin()], dim=-1)
    kv_cache = torch.full((2, 3, 1, 4, 8), math.nan)
    slots = torch.tensor([5, 0, 11])
    turned_query = ops.rotary_and_write_kv(query, key, value, cos_sin, kv_cache, slots)
    written = kv_cache.transpose(2, 3).flatten(1, 2)  # [2, slots, heads, head_dim]
    assert torch.equal(written[1, slots], value)
    assert written.isnan().sum() == written.numel() - key.numel() - value.numel()
    for before, after in ((query, turned_query), (key, written[0, slots])):
        half = rotary_dim // 2
        pairs = torch.complex(before[..., :half], before[..., half:rotary_dim])
        turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
        torch.testing.assert_close(after[..., :half], turned.real)
        torch.testing.assert_close(after[..., half:rotary_dim], turned.imag)
        assert torch.equal(after[..., rotary_dim:], before[..., rotary_dim:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_keys_and_values_go_to_their_slots_and_nowhere_else(ops, dtype, block_size):
    _, key, value = heads(7, (3, 2, 2), 20, dtype)
    kv_cache = torch.full((2, 32 // block_size, 2, block_size, 20), math.nan, dtype=dtype)
    slots = torch.randperm(32)[:7]
    ops.write_kv(key, value, kv_cache, slots)
    written = kv_cache.transpose(2, 3).flatten(1, 2)
    assert torch.equal(written[0, slots], key) and torch.equal(written[1, slots], value)
    assert written.isnan().sum() == 2 * (32 - 7) * 2 * 20


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
@pytest.mark.parametrize("size", [1, 7, 16, 80, 130, 896])
def test_every_width_and_dtype_equals_the_reference_in_float32(ops, dtype, tolerance, size):
    def check(found, expected):
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)

    x = torch.randn(5, 2, size + 3).to(dtype)[
        ..., :size
    ]  # with gaps, as heads of a projection have
    weight, bias = torch.randn(2, size).to(dtype)
    x32, weight32, bias32 = x.float(), weight.float(), bias.float()
    normed = reference.rms_norm(x32, weight32, 1e-5)
    check(ops.rms_norm(x, weight, 1e-5), normed)
    check(ops.rms_norm(x, weight32, 1e-5), normed)
    check(ops.layer_norm(x, weight, bias, 1e-3), reference.layer_norm(x32, weight32, bias32, 1e-3))
    residual = torch.randn(5, 2, size).to(dtype)
    found, total = ops.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, x + residual)
    check(found, reference.rms_norm(total.float(), weight32, 1e-5))
    gate_up = (4 * torch.randn(5, 2 * size)).to(dtype)
    check(ops.silu_and_mul(gate_up), reference.silu_and_mul(gate_up.float()))
    for kind in ("none", "tanh"):
        check(ops.gelu_and_mul(gate_up, kind), reference.gelu_and_mul(gate_up.float(), kind))


def test_activations_of_extreme_numbers(ops):
    gate = torch.tensor([-1e4, -90.0, -0.0, 90.0, 1e4, math.nan])
    gate_up = torch.cat([gate, torch.ones(6)])
    for found in (ops.silu_and_mul(gate_up[None])[0], ops.gelu_and_mul(gate_up[None])[0]):
        torch.testing.assert_close(
            found, torch.tensor([0, 0, 0, 90.0, 1e4, math.nan]), equal_nan=True
        )


@pytest.mark.parametrize("rows", [1, 2, 8, 33, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_gets_the_same_bits_in_any_company(ops, rows, dtype):
    if ops is reference:
        pytest.skip("torch promises nothing of the kind")
    x, residual, weight = torch.randn(64, 896), torch.randn(64, 896), torch.randn(896)
    x, residual, weight = x.to(dtype), residual.to(dtype), weight.to(dtype)
    part = slice(64 - rows, None)
    for operation in (
        lambda part: ops.rms_norm(x[part], weight, 1e-6),
        lambda part: ops.add_rms_norm(x[part], residual[part], weight, 1e-6)[0],
        lambda part: ops.layer_norm(x[part], weight, weight, 1e-6),
        lambda part: ops.silu_and_mul(x[part]),
        lambda part: ops.gelu_and_mul(x[part]),
    ):
        assert torch.equal(operation(part), operation(slice(None))[part])


@pytest.mark.parametrize("width", [1, 15, 64, 1000])
def test_peaks_are_the_first_of_the_greatest(ops, width):
    logits = torch.randint(-20, 20, (40, width + 3)).float()[:, :width]
    values, ids = ops.row_peaks(logits)
    for row, value, token in zip(logits.tolist(), values.tolist(), ids.tolist(), strict=True):
        assert value == max(row) and token == row.index(value)


def test_peaks_of_rows_that_are_not_finite(ops):
    logits = torch.randn(4, 100)
    logits[0, [40, 99]] = math.nan
    logits[1, [7, 8]] = math.inf
    logits[2] = -math.inf
    logits[3, 98] = 50
    values, ids = ops.row_peaks(logits)
    torch.testing.assert_close(
        values, torch.tensor([math.nan, math.inf, -math.inf, 50]), equal_nan=True
    )
    assert ids.tolist() == [40, 7, 0, 98]


@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 1000])
def test_tokens_are_restricted_by_bits(ops, width):
    logits = torch.randn(6, width + 3)[:, :width]
    words = torch.randint(-(2**31), 2**31, (4, -(-width // 32)), dtype=torch.int32)
    words[0], words[1] = -1, 0  # all, none
    owners = torch.tensor([2, -1, 0, 3, 1, 2])
    expected = logits.tolist()
    for row, owner in zip(expected, owners.tolist(), strict=True):
        for i in range(width):
            if owner >= 0 and not words[owner, i // 32].item() >> i % 32 & 1:
                row[i] = -math.inf
    ops.restrict_tokens(logits, words, owners)
    assert logits.tolist() == expected


@pytest.mark.parametrize("half", [1, 7, 32])
def test_angles_of_positions(ops, half):
    positions = torch.tensor([0, 1, 5, 4097, 131071])
    frequencies = 1e4 ** -(torch.arange(half) / half)
    cosines, sines = ops.rotary_angles(positions, frequencies, 1.5).chunk(2, dim=1)
    angles = (positions[:, None].float() * frequencies).double()
    torch.testing.assert_close(cosines.double(), angles.cos() * 1.5, atol=3e-7, rtol=1e-6)
    torch.testing.assert_close(sines.double(), angles.sin() * 1.5, atol=3e-7, rtol=1e-6)
    own = frequencies * torch.arange(1, 6)[:, None]  # each token's own
    torch.testing.assert_close(
        ops.rotary_angles(positions, own, 1.0), reference.rotary_angles(positions, own, 1.0)
    )


@pytest.mark.parametrize("width", [1, 7, 100, 1000])
@pytest.mark.parametrize("spread", [3, 1e6])
def test_likeliest_are_sorted_by_logit_then_place(ops, width, spread):
    logits = (torch.randn(5, 1003) * spread).round()[:, :1000]
    logits[1] = 0
    logits[2, ::2] = -math.inf
    logits[3, 500:] = -0.0
    logits[3, :500] = 0.0
    values, ids = ops.likeliest(logits, width)
    for row, found, places in zip(logits.tolist(), values.tolist(), ids.tolist(), strict=True):
        assert places == sorted(range(1000), key=lambda i: (-row[i], i))[:width]
        assert found == [row[i] for i in places]


@pytest.mark.parametrize("name", reference.__all__)
def test_every_implementation_has_the_reference_s_signature(ops, name):
    expected = inspect.signature(getattr(reference, name))
    assert inspect.signature(getattr(dispatch, name)) == expected
    if hasattr(ops, name):
        assert inspect.signature(getattr(ops, name)) == expected


@pytest.mark.skipif(
    os.environ.get("QUIRE_KERNELS") == "reference" or bool(cpu.unavailable()), reason="not in use"
)
@pytest.mark.parametrize("name", sorted(set(cpu.__all__) - {"squeezes", "unavailable"}))
def test_dispatch_finds_the_compiled_operations(ops, name):
    if name.startswith("squeeze") and not cpu.squeezes():
        pytest.skip("not with this machine's instructions")
    assert dispatch.find(name, "cpu") is getattr(cpu, name)
    assert dispatch.find(name, "meta") is getattr(reference, name)
