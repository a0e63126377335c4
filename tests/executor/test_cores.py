"""How many threads compute by default: from affinity, siblings and control groups of a made-up system."""

from __future__ import annotations

import os

import pytest
import torch

from quire import LLM
from quire.errors import ConfigError
from quire.executor import cores


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Makes files below a root; four CPUs, two to a core."""
    monkeypatch.setattr(cores, "_own_cpus", lambda: {0, 1, 2, 3})

    def make(files, siblings=("0,2", "1,3", "0,2", "1,3")):
        for cpu, text in enumerate(siblings):
            files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = text
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return make


def test_threads_of_one_core_count_once(system):
    assert cores.usable_cores(system({})) == 2


def test_a_system_that_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_own_cpus", lambda: {0, 1, 5})
    assert cores.usable_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 4),
        (
            {"sys/fs/cgroup/cpu.max": "250000 100000"},
            3,
        ),  # two and a half: the third has something to do
        ({"sys/fs/cgroup/cpu.max": "10000 100000"}, 1),
        (
            {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "200000 100000"},
            2,
        ),
        (
            {
                "sys/fs/cgroup/a/b/cpu.max": "100000 100000",
                "sys/fs/cgroup/a/cpu.max": "200000 100000",
            },
            1,
        ),
    ],
)
def test_control_groups(system, files, expected):
    own = "/a/b" if any("/a/" in name for name in files) else "/"
    root = system({"proc/self/cgroup": f"0::{own}", **files}, siblings=("0", "1", "2", "3"))
    assert cores.usable_cores(root) == expected


def test_control_groups_of_the_first_kind(system):
    files = {
        "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x",
        "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert cores.usable_cores(system(files)) == 1


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_option_and_the_environment(monkeypatch, torch_threads):
    with LLM(threads=3) as llm:
        assert llm.engine and torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with LLM(seed=1) as llm:
        assert llm.engine and torch.get_num_threads() == 3  # the environment is torch's to follow
    monkeypatch.delenv("OMP_NUM_THREADS")
    with LLM(seed=2) as llm:
        assert llm.engine and torch.get_num_threads() == min(3, cores.usable_cores())
    assert os.cpu_count()
    with pytest.raises(ConfigError, match="threads"):
        LLM(threads=0)
