"""Records of operations: the same results on other inputs, memory taken again, and what spoils a record."""

from __future__ import annotations

import pytest
import torch

from quire_kernels import cpu
from quire_kernels.cpu import build
from quire_kernels.cpu.operation import Arena, recording

pytestmark = pytest.mark.skipif(
    build.find_compiler() is None and build.find_prebuilt() is None, reason="no compiled kernels"
)


def linked(x, weight, depth=6):
    total = x
    for _ in range(depth):
        normed, total = cpu.add_rms_norm(x, total, weight, 1e-6)
        x = cpu.rms_norm(normed.view(-1, 4), weight[:4], 1e-6).view(x.shape)
    return x


def test_a_program_does_to_new_inputs_what_was_done_to_old_ones():
    x, weight = torch.randn(3, 32), torch.rand(32)
    with recording(Arena(1 << 16)) as record:
        result = linked(x, weight)
    assert record.foreign is None
    program = record.program()
    assert torch.equal(result, linked(x, weight))
    for seed in range(3):
        x.copy_(torch.randn(3, 32, generator=torch.Generator().manual_seed(seed)))
        program.run()
        assert torch.equal(result, linked(x, weight))


def test_results_share_memory_with_those_that_died_before():
    x, weight = torch.randn(3, 32), torch.rand(32)
    arena = Arena(1 << 16)
    with recording(arena) as record:
        linked(x, weight, depth=50)
    assert record.foreign is None
    assert len(arena.memory) == 1  # 150 results of 384 bytes, in turn
    small = Arena(1024)
    with recording(small) as record:
        result = linked(x, weight)
    record.program().run()
    assert len(small.memory) > 1
    assert torch.equal(result, linked(x, weight))


def test_records_of_one_arena_do_not_spoil_each_other():
    weight = torch.rand(32)
    arena = Arena(1 << 16)
    inputs = [torch.randn(rows, 32) for rows in (1, 4, 2)]
    records = []
    for x in inputs:
        with recording(arena) as record:
            result = linked(x, weight)
        records.append((record.program(), result))
    for i in (2, 0, 1, 0):
        program, result = records[i]
        program.run()
        assert torch.equal(result, linked(inputs[i], weight))


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x + 1,
        lambda x: x.add_(1),
        lambda x: x.t().contiguous(),
        lambda x: x.to(torch.bfloat16),
        lambda x: x.sum().item(),
        lambda x: torch.nn.functional.gelu(x),
        lambda x: x.__setitem__(0, 0),
        lambda x: torch.cat((x, x)),
        lambda x: x.tolist(),
    ],
)
def test_what_torch_computes_is_noticed(compute):
    x = torch.randn(3, 32)
    with recording(Arena(1 << 16)) as record:
        compute(x)
    assert record.foreign is not None


def test_looking_at_tensors_spoils_nothing():
    x = torch.randn(3, 32)
    with recording(Arena(1 << 16)) as record:
        first, second = x.view(3, 4, 8).split([1, 3], dim=1)
        assert first.shape == (3, 1, 8) and second.stride() == (32, 8, 1)
        assert x.contiguous().data_ptr() == x[:2].data_ptr() and x.is_cpu
        second.flatten(1, 1).unsqueeze(0)
    assert record.foreign is None
