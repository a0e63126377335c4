"""The compiled library: where it lies, and how it is made on first use.

A library that came with the package for an instruction set that this CPU has is taken first, then one
compiled before for this very CPU, and else the system's compiler makes one, in seconds. It knows nothing
of the operations inside, nor of torch.

Environment:
    QUIRE_CACHE: folder of quire's caches; default: quire in $XDG_CACHE_HOME or ~/.cache.
    CXX: the compiler; default: g++, c++ or clang++, whichever is found first.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "src"
PREBUILT = Path(__file__).parent / "prebuilt"

FLAGS = (
    "-O3", "-std=c++17", "-fPIC", "-pthread",
    "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-maybe-uninitialized",
)  # fmt: skip
NATIVE = ("-mcpu=native",) if platform.machine() in ("aarch64", "arm64") else ("-march=native",)

_V3 = ("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# What prebuilt libraries are made for, best first: name -> compiler's flags, flags the CPU must have.
LEVELS = {
    "x86-64-v4-bf16": (
        ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni"),
        (*_V4, "avx512_bf16", "avx512_vnni"),
    ),
    "x86-64-v4": (("-march=x86-64-v4",), _V4),
    "x86-64-v3": (("-march=x86-64-v3",), _V3),
}


class KernelsUnavailable(RuntimeError):
    """There is no compiled library for this machine, and none can be made; the message says why."""


@functools.cache
def library() -> ctypes.CDLL:
    """The library for this machine, compiled if there is none yet.

    Raises:
        KernelsUnavailable: no compiler, or it failed, or no folder to keep the result in.
    """
    path = find_prebuilt() or build()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelsUnavailable(f"{path} cannot be loaded: {error}") from error


def build() -> Path:
    """Compile for this machine, unless that was done before, into the user's cache.

    Raises:
        KernelsUnavailable: see `library`.
    """
    folder = cache_folder()
    key = _hash(_sources_hash(), *NATIVE, *sorted(cpu_flags()))
    compiler = find_compiler()
    if compiler is None:
        # Compiled ahead, say in another stage of a container's build.
        for path in sorted(folder.glob(f"{key}-*.so")):
            return path
        raise KernelsUnavailable("there is no C++ compiler: install g++, or set CXX")
    about = compiler.resolve().stat()
    path = folder / f"{key}-{_hash(str(compiler), str(about.st_size), str(about.st_mtime_ns))}.so"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(path.with_suffix(".lock")):
                if not path.exists():
                    logger.info("compiling kernels for this CPU, once, in some ten seconds")
                    compile_library(compiler, NATIVE, path)
        except OSError as error:
            raise KernelsUnavailable(
                f"{folder} cannot be written ({error}); set QUIRE_CACHE to a folder that can"
            ) from error
    return path


def find_prebuilt() -> Path | None:
    """The best library in the package that this CPU can run and that was made from these sources."""
    flags = cpu_flags()
    for level, (_, needed) in LEVELS.items():
        path = prebuilt_path(level)
        if flags.issuperset(needed) and path.exists():
            return path
    return None


def prebuilt_path(level: str) -> Path:
    """Where the library of one of `LEVELS` lies in the package."""
    return PREBUILT / f"{level}-{_sources_hash()}.so"


def compile_library(compiler: Path, target: Sequence[str], path: Path) -> None:
    """Compile all sources into the library `path`, which appears whole or not at all.

    Raises:
        KernelsUnavailable: the compiler failed.
        OSError: the folder of `path` cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        scratch = Path(name)
        sources = sorted(SOURCES.glob("*.cpp"))
        objects = [scratch / f"{source.stem}.o" for source in sources]

        def compile_one(source: Path, result: Path) -> None:
            _run([compiler, *FLAGS, *target, "-c", source, "-o", result])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, sources, objects))
        _run([compiler, "-shared", "-pthread", *objects, "-o", scratch / path.name])
        (scratch / path.name).replace(path)


def find_compiler() -> Path | None:
    """The system's C++ compiler; None if there is none."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    found = (shutil.which(name) for name in names)
    return next((Path(path) for path in found if path), None)


def cache_folder() -> Path:
    """Where compiled libraries are kept."""
    if os.environ.get("QUIRE_CACHE"):
        return Path(os.environ["QUIRE_CACHE"]) / "kernels"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "quire" / "kernels"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What the CPU can do, in the kernel's words; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()


@functools.cache
def _sources_hash() -> str:
    sources = [path.read_bytes().decode() for path in sorted(SOURCES.iterdir())]
    return _hash(platform.system(), platform.machine(), *FLAGS, *sources)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        line = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise KernelsUnavailable(f"{command[0]} failed: {line.strip()}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; gone with the process."""
    if sys.platform == "win32":
        raise KernelsUnavailable("compiled kernels are not made for Windows")
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
