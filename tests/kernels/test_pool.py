"""The threads of the compiled operations: every piece done once, whoever asks, and after a fork too."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from quire_kernels import cpu
from quire_kernels.cpu import build
from quire_kernels.reference.linear import empty_packed

pytestmark = pytest.mark.skipif(
    build.find_compiler() is None and build.find_prebuilt() is None, reason="no compiled kernels"
)


@pytest.fixture
def threads():
    """Three threads for each operation, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def layer(seed, rows=5, inputs=96, outputs=4096):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    packed = empty_packed(outputs, inputs, torch.float32, torch.device("cpu"))
    cpu.pack_rows(packed, weight, 0)
    return x, packed, outputs


def test_several_threads_compute_what_one_does(threads):
    x, packed, outputs = layer(0)
    together = cpu.packed_linear(x, packed, outputs)
    torch.set_num_threads(1)
    alone = cpu.packed_linear(x, packed, outputs)
    assert torch.equal(together, alone)


def test_callers_at_the_same_time_do_not_meet(threads):
    cases = [layer(seed) for seed in range(4)]
    torch.set_num_threads(1)
    wanted = [cpu.packed_linear(*case) for case in cases]
    torch.set_num_threads(threads)
    wrong = []

    def work(case, expected):
        torch.set_num_threads(threads)
        for _ in range(200):
            if not torch.equal(cpu.packed_linear(*case), expected):
                wrong.append(case)

    callers = [threading.Thread(target=work, args=pair) for pair in zip(cases, wanted, strict=True)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(threads):
    case = layer(1)
    wanted = cpu.packed_linear(*case)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(cpu.packed_linear(*case), wanted) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(cpu.packed_linear(*case), wanted)
