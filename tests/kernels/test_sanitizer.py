"""The compiled operations read and write what is theirs: their tests again, under the sanitizers.

The library is compiled with AddressSanitizer and UndefinedBehaviorSanitizer, by way of a script that
stands in for the compiler, and loaded into a Python with the sanitizer's runtime before all else. That
runtime guards what torch allocates too.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quire_kernels.cpu import build

TESTS = Path(__file__).parent
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -O2 -g"

pytestmark = pytest.mark.slow


def runtime(compiler, name):
    """A library that came with the compiler; skips where there is none."""
    asked = [compiler, f"-print-file-name={name}"]
    found = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    if not found.is_absolute() or not found.exists():
        pytest.skip(f"{compiler} has no {name}")
    return str(found)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment variables with which a new Python uses a sanitized library, not compiled yet."""
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    if build.find_prebuilt() is not None:
        pytest.skip("a prebuilt library would be taken")
    folder = tmp_path_factory.mktemp("sanitized")
    wrapper = folder / "compiler"
    # The compiler itself needs no guard, and would be slower by it.
    wrapper.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {compiler} "$@" {SANITIZE}\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "CXX": str(wrapper),
        "QUIRE_CACHE": str(folder),
        "QUIRE_KERNELS": "auto",
        # The latter, too, since the former must find what torch throws exceptions by.
        "LD_PRELOAD": f"{runtime(compiler, 'libasan.so')} {runtime(compiler, 'libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much to the end of the process
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def run(environment, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment, capture_output=True, text=True, check=False, cwd=TESTS.parents[1],
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_a_read_past_the_end_is_found(environment):
    done = run(
        environment,
        "-c",
        "import torch; from quire_kernels import cpu\n"
        "print('within', cpu.rms_norm(torch.ones(2, 64), torch.ones(64), 0.0).sum().item(), flush=True)\n"
        "cpu.rms_norm(torch.ones(2, 64), torch.ones(48), 0.0)",
    )
    assert done.stdout.split() == ["within", "128.0"], done.stderr
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr


@pytest.mark.timeout(900)
def test_the_tests_of_the_kernels_find_no_fault(environment):
    tests = sorted(TESTS.glob("test_*.py"))
    others = [path for path in tests if path.name not in (Path(__file__).name, "test_build.py")]
    done = run(
        environment,
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=600",
        "-m", "slow or not slow", "-s", *map(str, others),  # -s: what the sanitizer says last
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[:8000]
    assert " passed" in done.stdout
