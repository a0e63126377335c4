"""Squeezed weights: what is stored comes back, compiled code and reference store the same bytes, and products
have the bits of packed ones."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quire_kernels import cpu, reference
from quire_kernels.reference.linear import BLOCK, empty_packed
from quire_kernels.reference.squeezed import empty_squeezed, record_sizes, unsqueeze

COMPILED = cpu.unavailable() is None and cpu.squeezes()
SHAPES = [(64, 128), (1, 1), (17, 33), (130, 301), (48, 7), (500, 1111), (100, 13001)]


@pytest.fixture(scope="module", params=["reference", "cpu"])
def ops(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "cpu" and not COMPILED:
        pytest.skip("needs the compiled kernels and AVX-512 with bfloat16")
    return reference if request.param == "reference" else cpu


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul_(0.02).bfloat16()


def odd_numbers(weight: torch.Tensor) -> torch.Tensor:
    """With zeros of both signs, subnormals, huge ones, infinities and NaN among them."""
    odd = torch.tensor(
        [0.0, -0.0, 1e-40, -9e-39, 1e-30, 3e38, -7e20, torch.inf, -torch.inf, torch.nan]
    )
    weight = weight.clone()
    places = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(9))[: len(odd)]
    weight.view(-1)[places] = odd.bfloat16()[: len(places)]
    return weight


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int16)


def squeeze(ops: ModuleType, weight: torch.Tensor) -> torch.Tensor:
    squeezed = empty_squeezed(*weight.shape, weight.device)
    assert ops.squeeze_rows(squeezed, weight, 0)
    return squeezed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_stored_comes_back(ops: ModuleType, shape: tuple[int, int]) -> None:
    weight = odd_numbers(numbers(0, *shape))
    squeezed = squeeze(ops, weight)
    assert torch.equal(squeezed, squeeze(reference, weight))
    assert torch.equal(bits(unsqueeze(squeezed, *shape)), bits(weight))
    ids = torch.tensor([0, shape[0] - 1, shape[0] // 2])
    found = ops.squeezed_embedding(ids, squeezed, *shape)
    assert torch.equal(bits(found), bits(weight[ids]))
    for wrong in (shape[0], -1):
        with pytest.raises(IndexError):
            ops.squeezed_embedding(torch.tensor([0, wrong]), squeezed, *shape)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_bits_come_back_or_do_not_fit(data: st.DataObject) -> None:
    """Patches at the places and of the values that hypothesis chooses, up to their number and past it."""
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 50))
    words = bits(numbers(data.draw(st.integers(0, 99)), rows, columns)).clone()
    for _ in range(data.draw(st.integers(0, 12))):
        place = data.draw(st.integers(0, words.numel() - 1))
        words.view(-1)[place] = data.draw(st.integers(-(2**15), 2**15 - 1))
    weight = words.view(torch.bfloat16)
    found, fits = [], []
    for ops in [reference, cpu] if COMPILED else [reference]:
        found.append(empty_squeezed(rows, columns, weight.device))
        fits.append(ops.squeeze_rows(found[-1], weight, 0))
    assert len(set(fits)) == 1
    if fits[0]:
        assert torch.equal(bits(unsqueeze(found[0], rows, columns)), words)
        assert torch.equal(found[0], found[-1])


def test_rows_are_put_in_parts_and_transposed(ops: ModuleType) -> None:
    weight = odd_numbers(numbers(0, 200, 35))
    squeezed = empty_squeezed(200, 35, weight.device)
    assert ops.squeeze_rows(squeezed, weight[160:], 160)
    assert ops.squeeze_rows(squeezed, weight.t().contiguous().t()[:48], 0)
    assert ops.squeeze_rows(squeezed, weight[48:160], 48)
    assert torch.equal(squeezed, squeeze(reference, weight))


def test_too_many_patches_do_not_fit(ops: ModuleType) -> None:
    _, capacity, _ = record_sizes(64)
    weight = numbers(0, 2 * BLOCK, 64)
    weight[BLOCK].fill_(0.01)
    squeezed = empty_squeezed(*weight.shape, weight.device)
    weight[BLOCK, :capacity] = 1e30
    assert ops.squeeze_rows(squeezed, weight, 0)
    weight[BLOCK, : capacity + 1] = 1e30
    assert not ops.squeeze_rows(squeezed, weight, 0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_products_have_the_bits_of_packed_ones(
    ops: ModuleType, shape: tuple[int, int], threads: int
) -> None:
    outputs, inputs = shape
    weight, bias = numbers(0, *shape), numbers(1, outputs)
    weight.view(-1)[:: max(7, weight.numel() // 6)] = 1e-25  # patches
    packed = empty_packed(outputs, inputs, weight.dtype, weight.device)
    ops.pack_rows(packed, weight, 0)
    squeezed = squeeze(ops, weight)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for rows in (*range(1, 10), 15, 16, 17, 33, 64, 300):
            x = numbers(2, rows, inputs)
            for given_bias, dtype in ((None, torch.float32), (bias, None)):
                expected = ops.packed_linear(x, packed, outputs, given_bias, dtype)
                found = ops.squeezed_linear(x, squeezed, outputs, given_bias, dtype)
                assert found.dtype == expected.dtype and torch.equal(found, expected)
    finally:
        torch.set_num_threads(before)
