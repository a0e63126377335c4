"""The compiled library: made once, found again; and what happens without one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quire.cli import main
from quire_kernels.cpu import build

needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and sources that compile in no time."""
    sources = tmp_path / "src"
    sources.mkdir()
    (sources / "one.cpp").write_text('extern "C" int quire_one() { return 1; }')
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setenv("QUIRE_CACHE", str(tmp_path / "cache"))
    build._sources_hash.cache_clear()
    yield tmp_path / "cache" / "kernels"
    build._sources_hash.cache_clear()


def run_python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "QUIRE_KERNELS": "auto", **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


USE = """
import torch
from quire_kernels import dispatch
print(dispatch.rms_norm(torch.ones(2, 8), torch.ones(8), 0.0).sum().item())
print(dispatch.multiplies_packed("cpu"))
"""


@needs_compiler
def test_the_library_brings_no_openmp_of_its_own():
    done = run_python(
        "import torch; from quire_kernels.cpu import build; build.library();"
        "print({line.split()[-1] for line in open('/proc/self/maps') if 'omp' in line.split('/')[-1]})"
    )
    assert len(eval(done.stdout)) == 1, done.stdout  # torch's


@needs_compiler
def test_processes_that_start_at_once_compile_once(cache, tmp_path):
    log = tmp_path / "log"
    wrapper = tmp_path / "compiler"
    wrapper.write_text(f'#!/bin/sh\necho run >> {log}\nexec {build.find_compiler()} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    code = f"""
from pathlib import Path
from quire_kernels.cpu import build
build.SOURCES, build.PREBUILT = Path({str(build.SOURCES)!r}), Path({str(build.PREBUILT)!r})
print(build.library().quire_one(), build.build())
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "CXX": str(wrapper)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    [output] = outputs
    assert output.split() == ["1", str(next(cache.glob("*.so")))]
    assert log.read_text().count("run") == 2  # one source, one link


@needs_compiler
def test_a_library_is_found_again_also_where_the_compiler_is_gone(cache, monkeypatch):
    path = build.build()
    before = path.stat().st_mtime_ns
    assert build.build() == path and path.stat().st_mtime_ns == before
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build() == path


@needs_compiler
def test_changed_sources_are_compiled_anew(cache):
    first = build.build()
    (build.SOURCES / "one.cpp").write_text('extern "C" int quire_one() { return 2; }')
    build._sources_hash.cache_clear()
    assert build.build() != first


def test_without_a_compiler_there_is_a_reason(cache, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.KernelsUnavailable, match="install g\\+\\+"):
        build.build()
    assert main(["build-kernels"]) == 1
    assert "install g++" in capsys.readouterr().err


@needs_compiler
def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(cache):
    (build.SOURCES / "one.cpp").write_text("int broken(")
    build._sources_hash.cache_clear()
    with pytest.raises(build.KernelsUnavailable, match=r"failed: .*error"):
        build.build()
    assert not list(cache.glob("*.so"))


@needs_compiler
def test_a_cache_that_cannot_be_written_is_named(cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUIRE_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.KernelsUnavailable, match="QUIRE_CACHE"):
        build.build()


@needs_compiler
def test_a_prebuilt_library_is_taken_where_the_cpu_can_run_it(cache, monkeypatch):
    build.PREBUILT.mkdir()
    compiled = build.build()
    for level in build.LEVELS:
        shutil.copy(compiled, build.prebuilt_path(level))
    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset(build.LEVELS["x86-64-v3"][1]))
    assert build.find_prebuilt() == build.prebuilt_path("x86-64-v3")
    monkeypatch.setattr(build, "cpu_flags", frozenset)
    assert build.find_prebuilt() is None


@needs_compiler
def test_build_kernels_says_where_they_are(cache, capsys):
    assert main(["build-kernels"]) == 0
    path = Path(capsys.readouterr().out.split(" (")[0])
    assert path.parent == cache and path.exists()


def test_without_kernels_the_reference_runs_and_one_warning_says_why(tmp_path):
    done = run_python(USE, CXX="no-such-compiler", QUIRE_CACHE=str(tmp_path))
    assert done.stdout.split() == ["16.0", "False"]
    assert done.stderr.count("no compiled kernels") == 1 and "install g++" in done.stderr


def test_the_reference_can_be_asked_for():
    done = run_python(USE, QUIRE_KERNELS="reference", CXX="no-such-compiler")
    assert done.stdout.split() == ["16.0", "False"] and not done.stderr


def test_an_unknown_choice_of_kernels_is_an_error():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_python(USE, QUIRE_KERNELS="refrence")
    assert "QUIRE_KERNELS='refrence'" in caught.value.stderr
