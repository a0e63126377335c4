"""Puts kernels compiled for common instruction sets into the wheel, when QUIRE_PREBUILT=1 asks for it.

`make wheel` asks. A wheel made without asking is for every platform, and compiles at the first use.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PrebuiltKernels(BuildHookInterface):  # type: ignore[misc]
    """Compiles, adds the results to the wheel and names its platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or os.environ.get("QUIRE_PREBUILT") != "1":
            return
        name, libc = platform.libc_ver()
        if platform.machine() != "x86_64" or name != "glibc":
            raise RuntimeError("QUIRE_PREBUILT=1 makes wheels for x86-64 Linux with glibc alone")
        build = self._build_module()
        compiler = build.find_compiler()
        if compiler is None:
            raise RuntimeError("QUIRE_PREBUILT=1 needs a C++ compiler: install g++")
        self._scratch = tempfile.TemporaryDirectory()
        for level, (target, _) in build.LEVELS.items():
            file = build.prebuilt_path(level).name
            path = Path(self._scratch.name) / file
            build.compile_library(compiler, target, path)
            build_data["force_include"][str(path)] = f"quire_kernels/cpu/prebuilt/{file}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{libc.replace('.', '_')}_x86_64"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()

    def _build_module(self) -> Any:
        """`quire_kernels.cpu.build` by its path: the package itself needs torch."""
        path = Path(self.root) / "kernels/quire_kernels/cpu/build.py"
        spec = importlib.util.spec_from_file_location("quire_kernels_build", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
