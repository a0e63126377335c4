"""How large the KV cache is, and its tensors. It knows nothing of who owns which block."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from quire.config import GIB, CacheConfig, EngineConfig
from quire.errors import CacheTooSmallError, DeviceMemoryError
from quire.models.spec import ModelSpec

CPU_SHARE = 0.5  # of the memory that is free once the weights are loaded


def plan_cache(
    spec: ModelSpec, config: EngineConfig, dtype: torch.dtype, free_bytes: int | None = None
) -> CacheConfig:
    """Decide on the number of blocks.

    In this order: `num_gpu_blocks_override`; `kv_cache_memory_bytes`; what the device has to give, but
    no more than `max_num_seqs` requests of `max_model_len` tokens can use.

    Args:
        spec: the model's shape.
        config: resolved.
        dtype: of keys and values.
        free_bytes: what the cache may take of the device; default: `free_memory`.

    Raises:
        CacheTooSmallError: one request of `max_model_len` tokens does not fit.
    """
    assert config.max_model_len is not None
    block_bytes = spec.kv_bytes_per_token(dtype.itemsize) * config.block_size
    if config.num_gpu_blocks_override is not None:
        num_blocks = config.num_gpu_blocks_override
    elif config.kv_cache_memory_bytes is not None:
        num_blocks = config.kv_cache_memory_bytes // block_bytes
    else:
        if free_bytes is None:
            free_bytes = free_memory(spec, config)
        usable = config.max_num_seqs * math.ceil(config.max_model_len / config.block_size)
        num_blocks = min(max(free_bytes, 0) // block_bytes, usable)
    if num_blocks < 1:
        raise CacheTooSmallError(
            f"no memory is left for the KV cache: a block of {config.block_size} tokens takes "
            f"{block_bytes} bytes; free some memory, use a smaller model or dtype, or raise "
            "kv_cache_memory_bytes or gpu_memory_utilization",
            param="kv_cache_memory_bytes",
        )
    cache = CacheConfig(num_blocks, config.block_size, config.enable_prefix_caching)
    cache.check_holds(config.max_model_len)
    return cache


def cache_of_encoder(config: EngineConfig) -> CacheConfig:
    """Of no memory: a block for each text of a step, which is as long as the longest text may be."""
    return CacheConfig(config.max_num_seqs, config.block_size, enable_prefix_caching=False)


def allocate_cache(
    spec: ModelSpec, cache: CacheConfig, dtype: torch.dtype, device: torch.device
) -> list[torch.Tensor]:
    """Tensors of any content, one for each layer: [2, blocks, kv_heads, block_size, head_dim].

    Attention reads nothing that was not written before. So the memory is left untouched: on a CPU the
    system then hands out its pages as they are first written to, and a large cache costs no time.

    Raises:
        DeviceMemoryError: the device cannot hold them.
    """
    shape = spec.kv_cache_shape(cache.num_blocks, cache.block_size)
    try:
        return [torch.empty(shape, dtype=dtype, device=device) for _ in range(spec.num_layers)]
    except RuntimeError as error:  # torch.OutOfMemoryError too is one
        size = spec.kv_bytes_per_token(dtype.itemsize) * cache.num_tokens / GIB
        raise DeviceMemoryError(
            f"the KV cache of {cache.num_blocks} blocks ({size:.2f} GiB) does not fit into the memory "
            f"of {device}: lower kv_cache_memory_bytes, gpu_memory_utilization or max_model_len",
            param="kv_cache_memory_bytes",
        ) from error


def free_memory(spec: ModelSpec, config: EngineConfig) -> int:
    """Bytes that the cache may take on the config's device, the weights being loaded."""
    if config.device == "cpu":
        return int(CPU_SHARE * available_ram())
    torch.cuda.empty_cache()  # what torch keeps for itself is free too
    free, total = torch.cuda.mem_get_info()
    kept_free = (1 - config.gpu_memory_utilization) * total
    return int(free - kept_free - activation_bytes(spec, config))


def activation_bytes(spec: ModelSpec, config: EngineConfig) -> int:
    """Bytes set aside for the largest step: a few hidden states of each token, and the logits.

    An estimate from above for the usual ratio of feed-forward to hidden width, in float32.
    """
    assert config.max_num_batched_tokens is not None
    hidden = 16 * config.max_num_batched_tokens * spec.hidden_size
    logits = 4 * min(config.max_num_seqs, config.max_num_batched_tokens) * spec.vocab_size
    return 4 * (hidden + logits)


def available_ram(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process can still take without swapping.

    The machine's, or what the limits of the process's control groups leave, whichever is less.

    Args:
        proc, cgroups: where the kernel shows them.
    """
    machine = _machine_ram(proc / "meminfo")
    available: float = machine
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return machine
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be one of the host's; the root is then the container's own.
        group = root / path.strip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
            available = min(available, _cgroup_ram(folder, *names))
    return max(int(available), 0)


def _machine_ram(meminfo: Path) -> int:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Not Linux: count on half of what is built in.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _cgroup_ram(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> float:
    """What a control group leaves; infinity where it sets no limit."""
    try:
        limit = int((folder / limit_name).read_text())  # "max" is no number
        usage = int((folder / usage_name).read_text())
        for line in (folder / "memory.stat").read_text().splitlines():
            name, value = line.split()
            if name == cache_name:  # file cache, given back when needed
                usage -= int(value)
    except (OSError, ValueError):
        return math.inf
    return limit - usage
