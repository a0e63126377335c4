"""Packed and int8 linear layers and embeddings: against float64, against their reference, and alone
against in company."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch

from quire_kernels import reference
from quire_kernels.reference.linear import (
    BLOCK,
    GROUP,
    empty_packed,
    empty_scales,
    packed_shape,
    unpack,
    unpack_scales,
)

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
# [outputs, inputs]: whole blocks, odd everything, several units, a span that is cut
SHAPES = [(64, 128), (1, 1), (17, 33), (130, 301), (48, 7), (500, 1111), (100, 13001)]
COMPANY = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 64]


@pytest.fixture(scope="module", params=["reference", "cpu"])
def ops(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "reference":
        return reference
    build = importlib.import_module("quire_kernels.cpu.build")
    try:
        build.library()
    except build.KernelsUnavailable as error:
        pytest.skip(str(error))
    return importlib.import_module("quire_kernels.cpu.linear")


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pack(ops: ModuleType, weight: torch.Tensor) -> torch.Tensor:
    packed = empty_packed(*weight.shape, weight.dtype, weight.device)
    ops.pack_rows(packed, weight, 0)
    return packed


def quantize(ops: ModuleType, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    packed = empty_packed(*weight.shape, torch.uint8, weight.device)
    scales = empty_scales(*weight.shape, weight.device)
    ops.quantize_rows(weight, 0, packed, scales)
    return packed, scales


@pytest.mark.parametrize("dtype", DTYPES)
def test_layout(ops, dtype):
    weight = random(0, 37, 9, dtype=dtype)
    packed = pack(ops, weight)
    blocks, steps, block, width = packed_shape(37, 9, dtype)
    assert packed.shape == (blocks, steps, block, width) and block == BLOCK
    assert torch.equal(unpack(packed, 37, 9), weight)
    whole = unpack(packed, blocks * BLOCK, steps * width)
    assert not whole[37:].any() and not whole[:, 9:].any()  # whatever lay in the memory before


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_packed_in_parts_and_transposed(ops, dtype):
    weight = random(0, 200, 35, dtype=dtype)
    packed = empty_packed(200, 35, dtype, weight.device)
    ops.pack_rows(packed, weight[150:], 150)
    ops.pack_rows(packed, weight.t().contiguous().t()[:7], 0)
    ops.pack_rows(packed, weight[7:150], 7)
    assert torch.equal(packed, pack(reference, weight))
    halves, scales = (
        empty_packed(200, 35, torch.uint8, weight.device),
        empty_scales(200, 35, weight.device),
    )
    ops.quantize_rows(weight.t().contiguous().t()[100:], 100, halves, scales)
    ops.quantize_rows(weight[:100], 0, halves, scales)
    for ours, theirs in zip((halves, scales), quantize(reference, weight), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_equals_float64(ops, dtype, shape):
    outputs, inputs = shape
    weight, bias = random(0, *shape, dtype=dtype), random(1, outputs, dtype=dtype)
    packed = pack(ops, weight)
    for rows in (1, 3, 8, 21):
        x = random(2, rows, inputs, dtype=dtype)
        exact = x.double() @ weight.double().T
        size = x.double().abs() @ weight.double().abs().T  # what rounding errors grow with
        found = ops.packed_linear(x, packed, outputs, None, torch.float32)
        assert found.dtype == torch.float32 and found.shape == (rows, outputs)
        assert ((found - exact).abs() <= 2e-6 * size).all()
        found = ops.packed_linear(x, packed, outputs, bias)
        assert found.dtype == dtype
        exact, size = exact + bias.double(), size + bias.double().abs()
        tolerance = 2e-6 * size + torch.finfo(dtype).eps * exact.abs()
        assert ((found.double() - exact).abs() <= tolerance).all()


def test_outer_dimensions_and_strides(ops):
    weight = random(0, 40, 24)
    x = random(1, 3, 24, 5).transpose(1, 2)  # [3, 5, 24], not contiguous
    found = ops.packed_linear(x, pack(ops, weight), 40)
    torch.testing.assert_close(found, x @ weight.T)
    assert ops.packed_linear(x[:0], pack(ops, weight), 40).shape == (0, 5, 40)
    quantized = quantize(ops, weight)
    assert ops.int8_linear(x, *quantized, 40).shape == (3, 5, 40)
    assert ops.int8_linear(x[:0], *quantized, 40).shape == (0, 5, 40)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ops", ["cpu"], indirect=True)
def test_a_rows_bits_do_not_depend_on_its_company(ops, dtype, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for outputs, inputs in ((500, 1111), (144, 13001)):
            weight, bias = random(0, outputs, inputs, dtype=dtype), random(1, outputs, dtype=dtype)
            x = random(2, 150, inputs, dtype=dtype)
            packed, quantized = pack(ops, weight), quantize(ops, weight)
            whole = ops.packed_linear(x, packed, outputs, bias)
            whole8 = ops.int8_linear(x, *quantized, outputs, bias)
            for rows in COMPANY:
                some = x[-rows:]
                assert torch.equal(ops.packed_linear(some, packed, outputs, bias), whole[-rows:])
                assert torch.equal(ops.int8_linear(some, *quantized, outputs, bias), whole8[-rows:])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ops", ["cpu"], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
def test_int8_equals_its_reference(ops, dtype, shape):
    outputs, inputs = shape
    weight, bias = random(0, *shape, dtype=dtype), random(1, outputs, dtype=dtype)
    x = random(2, 11, inputs, dtype=dtype) * 3
    x[4] = 0
    weight[0] = 0
    packed, scales = quantize(ops, weight)
    expected_packed, expected_scales = quantize(reference, weight)
    assert torch.equal(scales, expected_scales)
    # Without fused multiplication and addition, a tie may be rounded the other way.
    assert (packed.int() - expected_packed.int()).abs().max() <= 1
    found = ops.int8_linear(x, expected_packed, scales, outputs, bias, torch.float32)
    expected = reference.int8_linear(x, expected_packed, scales, outputs, bias, torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
    assert ops.int8_linear(x, packed, scales, outputs, bias).dtype == dtype


def test_int8_is_exact_where_integers_are(ops):
    """Integers up to 127 with a 127 in every group and every row: nothing is rounded."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (70, 301), generator=generator).float()
    weight[:, ::GROUP] = 127
    x = torch.randint(-127, 128, (9, 301), generator=generator).float()
    x[:, ::GROUP] = -127
    packed, scales = quantize(ops, weight)
    assert torch.equal(unpack_scales(scales, 70), torch.ones(70, 10))
    assert torch.equal(
        ops.int8_linear(x, packed, scales, 70), (x.double() @ weight.double().T).float()
    )


def test_int8_is_near_what_it_stands_for(ops):
    weight, x = random(0, 300, 896), random(1, 20, 896)
    x[:, 3] *= 100  # costs its group alone
    found = ops.int8_linear(x, *quantize(ops, weight), 300).double()
    exact = x.double() @ weight.double().T
    assert torch.cosine_similarity(found, exact).min() > 0.9995


def test_int8_hides_no_bad_numbers(ops):
    weight = random(0, 20, 300)
    for bad in (torch.inf, -torch.inf, torch.nan):
        x = random(1, 2, 300)
        x[1, 200] = bad
        found = ops.int8_linear(x, *quantize(ops, weight), 20)
        assert found[0].isfinite().all() and not found[1].isfinite().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding(ops, dtype):
    table = random(0, 100, 33, dtype=dtype)
    ids = torch.tensor([0, 99, 15, 16, 17, 99])
    packed, quantized = pack(ops, table), quantize(ops, table)
    assert torch.equal(ops.packed_embedding(ids, packed, 100, 33), table[ids])
    assert torch.equal(ops.embedding(ids, table), table[ids])
    found = ops.int8_embedding(ids, *quantized, 100, 33, dtype)
    assert found.dtype == dtype
    assert torch.equal(found, reference.int8_embedding(ids, *quantized, 100, 33, dtype))
    steps = table.float().abs().amax(1)[ids, None] / 127
    assert (
        (found.float() - table[ids].float()).abs() <= 0.51 * steps + 0.01 * table[ids].abs()
    ).all()
    for wrong in (100, -1):
        with pytest.raises(IndexError):
            ops.packed_embedding(torch.tensor([3, wrong]), packed, 100, 33)
        with pytest.raises(IndexError):
            ops.embedding(torch.tensor([3, wrong]), table)
        with pytest.raises(IndexError):
            ops.int8_embedding(torch.tensor([3, wrong]), *quantized, 100, 33, dtype)
