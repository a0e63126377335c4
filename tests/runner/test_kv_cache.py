"""Sizes of the KV cache, and the memory they are taken from."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from quire.config import CacheConfig, EngineConfig, ModelLimits
from quire.errors import CacheTooSmallError, DeviceMemoryError
from quire.models.spec import ModelSpec
from quire.runner import kv_cache
from quire.runner.kv_cache import activation_bytes, allocate_cache, available_ram, plan_cache

SPEC = ModelSpec(
    architecture="LlamaForCausalLM",
    num_layers=3,
    hidden_size=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=100,
    max_positions=256,
    windows=(None,) * 3,
)
BLOCK = 2 * 3 * 2 * 8 * 4 * 16  # bytes of a block of 16 tokens in float32
LIMITS = ModelLimits(max_positions=256, dtype="float32", device="cpu")


def config(**options: object) -> EngineConfig:
    return EngineConfig.from_options(**options).resolve(LIMITS)


def blocks(free_bytes: int | None = None, **options: object) -> int:
    return plan_cache(SPEC, config(**options), torch.float32, free_bytes).num_blocks


def test_number_of_blocks() -> None:
    assert blocks(num_gpu_blocks_override=17, kv_cache_memory_bytes=1) == 17
    assert blocks(kv_cache_memory_bytes=20 * BLOCK + 5) == 20
    assert blocks(kv_cache_memory_bytes=20 * BLOCK, block_size=8) == 40
    assert blocks(30 * BLOCK) == 30
    assert blocks(10**12) == 256 * 256 // 16  # no more than max_num_seqs requests can use
    assert blocks(10**12, max_num_seqs=3, max_model_len=33) == 9
    half = plan_cache(SPEC, config(), torch.bfloat16, 30 * BLOCK)
    assert half.num_blocks == 60 and half.enable_prefix_caching


def test_a_cpu_gives_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "available_ram", lambda: 80 * BLOCK)
    assert blocks() == 40


def test_a_gpu_gives_its_share_less_what_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    total = 10**9
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (total - 3 * 10**8, total))
    options = dataclasses.replace(config(gpu_memory_utilization=0.9), device="cuda")
    expected = 0.9 * total - 3 * 10**8 - activation_bytes(SPEC, options)
    assert kv_cache.free_memory(SPEC, options) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("options", [{}, {"max_model_len": 200}])
def test_a_cache_that_cannot_hold_one_request_is_an_error(options: dict[str, int]) -> None:
    with pytest.raises(CacheTooSmallError, match="set max_model_len to at most 96"):
        blocks(kv_cache_memory_bytes=6 * BLOCK, **options)
    with pytest.raises(CacheTooSmallError, match="no memory is left"):
        blocks(-5, **options)


def test_tensors_have_the_shape_that_models_take() -> None:
    kv = allocate_cache(SPEC, CacheConfig(5, 16), torch.bfloat16, torch.device("cpu"))
    assert [tensor.shape for tensor in kv] == [(2, 5, 2, 16, 8)] * 3
    assert all(tensor.dtype == torch.bfloat16 for tensor in kv)


def test_a_cache_takes_no_memory_before_it_is_written_to() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    kv = allocate_cache(SPEC, CacheConfig(2**18, 16), torch.bfloat16, torch.device("cpu"))
    size = sum(tensor.nbytes for tensor in kv)
    assert resident() - before < size / 10


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceMemoryError, match="does not fit"):
        allocate_cache(SPEC, CacheConfig(10**13, 16), torch.float32, torch.device("cpu"))


def machine(root: Path, files: dict[str, str]) -> int:
    for name, text in {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable: 50 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return available_ram(root / "proc", root / "sys")


def test_ram_is_what_the_machine_has(tmp_path: Path) -> None:
    assert machine(tmp_path, {}) == 50 * 1024
    assert 0 < available_ram() < 2**50


def test_ram_is_what_control_groups_leave(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/outer/memory.max": "30000",
        "sys/outer/memory.current": "20000",
        "sys/outer/memory.stat": "anon 5\ninactive_file 4000\n",
        "sys/outer/inner/memory.max": "max",
        "sys/outer/inner/memory.current": "10",
        "sys/outer/inner/memory.stat": "inactive_file 0\n",
    }
    assert machine(tmp_path, files) == 30_000 - 20_000 + 4000
    assert machine(tmp_path, {"sys/outer/memory.max": "1000"}) == 0


def test_ram_under_control_groups_of_the_first_version(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "12:cpu:/x\n5:memory:/docker/abc\n0::/\n",
        "sys/memory/memory.limit_in_bytes": "9000",  # in a container its own group is the root
        "sys/memory/memory.usage_in_bytes": "4000",
        "sys/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
    }
    assert machine(tmp_path, files) == 5500
