"""`quire build-kernels`: compiles the CPU's operations ahead of their first use, say for a container."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quire.cli.flags import Parser
from quire.errors import MissingDependencyError

if TYPE_CHECKING:
    from quire.cli import MakeLLM


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire build-kernels`; it needs no model.

    Raises:
        MissingDependencyError: there is no C++ compiler, or it failed.
    """
    Parser(
        prog="quire build-kernels",
        usage="[--help]",
        description="Compile the CPU's operations for this machine into the cache, where engines find "
        "them. The folder is quire/kernels in $XDG_CACHE_HOME or ~/.cache; $QUIRE_CACHE overrides it.",
    ).parse(arguments)

    # After the flags are read: the package imports torch.
    from quire_kernels.cpu.build import KernelsUnavailable, build, find_prebuilt

    prebuilt = find_prebuilt()
    if prebuilt:
        print(f"{prebuilt} came with the package")
        return
    start = time.perf_counter()
    try:
        path = build()
    except KernelsUnavailable as error:
        raise MissingDependencyError(str(error)) from error
    print(f"{path} ({time.perf_counter() - start:.1f} s)")
