"""How many threads computing is worth here: cores that are this process's to use, each counted once."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores that this process may run on, and no more than its control group grants it time for.

    Two threads of one core share its arithmetic, so the second only adds to the work of keeping step. Where
    the system does not tell, every CPU is taken for a core.

    Args:
        root: where /proc and /sys are looked for.
    """
    cpus = _own_cpus()
    cores = {_core_of(root, cpu) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), _granted(root))))


def _own_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core_of(root: Path, cpu: int) -> str:
    """A name that CPUs of one core have in common."""
    siblings = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    return _read(siblings) or str(cpu)


def _granted(root: Path) -> float:
    """CPUs' worth of time that the control group allows; the least of it and those above it."""
    least = math.inf
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("" if not controllers else "cpu")
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if controllers:
                limits = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
            else:
                limits = _read(folder / "cpu.max").split()
            if len(limits) == 2 and all(limit.isdigit() for limit in limits):
                least = min(least, int(limits[0]) / int(limits[1]))
            if folder == base:
                break
    return least


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
