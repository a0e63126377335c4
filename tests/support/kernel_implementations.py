"""The implementations of quire's kernels, for tests that run against each of them."""

from __future__ import annotations

import pytest

from quire_kernels import cpu, reference

IMPLEMENTATIONS = [
    pytest.param(reference, id="reference"),
    pytest.param(
        cpu, id="cpu", marks=pytest.mark.skipif(bool(cpu.unavailable()), reason="not built")
    ),
]
