"""What an engine is asked to be: `EngineConfig`, validated at the edge, resolved by a pure function.

Field names are vLLM's. Command-line flags are generated from the fields (`cli`). Nothing here imports
torch or transformers: `resolve` is handed what it needs to know of model and machine.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quire.errors import CacheTooSmallError, ConfigError, UnknownParamError, suggest

DTYPES = ("auto", "bfloat16", "float16", "float32")
GIB = 1024**3

# What a field's annotation takes, and the words for it.
KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": ((str, os.PathLike), "text"),
    "bool": (bool, "True or False"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "Mapping[str, Any]": (Mapping, "a dict"),
}

# Options of vLLM's that users write often, and why they are not here.
ELSEWHERE = {
    "kv_cache_dtype": "the KV cache has the model's dtype",
    "enable_chunked_prefill": "long prompts are always computed in chunks; leave it out",
    "swap_space": "requests that lose their blocks are computed again; leave it out",
    "cpu_offload_gb": "weights are kept whole on one device",
    "max_seq_len_to_capture": "this release captures no graphs; leave it out",
    "enable_lora": "this release has no adapters",
    "limit_mm_per_prompt": "this release runs text models only",
    "data_parallel_size": "this release runs on one device",
    "distributed_executor_backend": "this release runs on one device; leave it out",
    "speculative_config": "this release does not speculate",
    "enable_auto_tool_choice": "tools can always be called; leave it out",
    "model_impl": "all models of this release are quire's own; leave it out",
}


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A config field with its help text and choices, for documentation and command line."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Options of an engine.

    Raises:
        ConfigError: an option out of range, or one that asks for what this release does not have.
        UnknownParamError: an option that does not exist (through `from_options`).
    """

    model: str | None = option(None, "folder or hub name of the model; default: the bundled one")
    tokenizer: str | None = option(
        None, "folder or hub name of the tokenizer; default: the model's"
    )
    tokenizer_mode: str = option("auto", "auto takes the fast tokenizer", ("auto", "slow"))
    skip_tokenizer_init: bool = option(False, "load no tokenizer; prompts must be token ids")
    trust_remote_code: bool = option(
        False, "run Python code that comes with the model's repository"
    )
    revision: str | None = option(
        None, "branch, tag or commit on the hub, for all of the model's files"
    )
    tokenizer_revision: str | None = option(None, "the same for the tokenizer")
    hf_token: str | None = option(None, "hub token; default: HF_TOKEN or the logged-in one")
    hf_overrides: Mapping[str, Any] | None = option(None, "values that replace ones of config.json")
    download_dir: str | None = option(None, "folder for downloads; default: the Hugging Face cache")
    load_format: str = option(
        "auto",
        "files to read weights from; dummy makes random ones",
        ("auto", "safetensors", "pt", "dummy"),
    )
    dtype: str = option("auto", "of weights and activations; auto takes the checkpoint's", DTYPES)
    quantization: str | None = option(
        None, "int8 quantizes plain weights while they are loaded; default: none", ("int8",)
    )
    runner: str = option(
        "auto",
        "what the model is for: generate text, or pooling for embeddings and scores; auto asks its files",
        ("auto", "generate", "pooling"),
    )
    pooler_config: Mapping[str, Any] | None = option(
        None, "pooling_type (CLS, LAST, MEAN, MAX) and use_activation, in place of the model's"
    )
    device: str = option("auto", "auto takes cuda where there is one", ("auto", "cpu", "cuda"))
    threads: int | None = option(
        None,
        "threads that compute on a CPU; default: OMP_NUM_THREADS, or its physical cores as far as the "
        "control group grants them",
    )
    seed: int = option(0, "of requests that set no seed of their own")
    chat_template: str | None = option(
        None, "jinja template, or its file, in place of the tokenizer's"
    )
    tool_call_parser: str | None = option(
        None, "how the model writes calls of tools, such as hermes; default: as its template does"
    )
    reasoning_parser: str | None = option(
        None, "tags around the model's thoughts, such as think; default: those of its template"
    )
    generation_config: str = option(
        "auto", "folder of generation_config.json; auto: the model's; vllm: none"
    )
    override_generation_config: Mapping[str, Any] | None = option(
        None, "values that replace ones of generation_config.json"
    )
    max_model_len: int | None = option(None, "longest prompt plus completion; default: the model's")
    max_num_seqs: int = option(256, "requests that run at the same time")
    max_num_batched_tokens: int | None = option(
        None, "tokens computed in one step; default: 2048 on a CPU, 8192 on a GPU"
    )
    max_waiting_requests: int | None = option(
        None,
        "requests that may wait for a seat before a server refuses more; default: 1024, and 65536 texts of "
        "an encoder",
    )
    max_waiting_tokens: int | None = option(
        None,
        "prompt tokens that may wait; default: four times the KV cache's, and 4M of an encoder",
    )
    block_size: int = option(16, "tokens in a block of the KV cache")
    gpu_memory_utilization: float = option(0.92, "share of a GPU's memory for weights and KV cache")
    kv_cache_memory_bytes: int | None = option(
        None,
        "bytes of the KV cache; default: what the GPU has left, or half of a CPU's free memory",
    )
    num_gpu_blocks_override: int | None = option(None, "blocks of the KV cache, for tests")
    enable_prefix_caching: bool = option(
        True, "keep KV blocks of finished requests for prompts alike"
    )
    session_ttl: float = option(
        300.0,
        "seconds that a session's KV blocks are retained after its last request; 0: not at all",
    )
    session_cache_share: float = option(
        0.5, "the most of the KV cache that is retained for sessions, in [0, 1]"
    )
    scheduling_policy: str = option("fcfs", "which waiting request is next", ("fcfs", "priority"))
    max_logprobs: int = option(20, "the most logprobs that a request may ask for; -1: no limit")
    disable_log_stats: bool = option(False, "put no timestamps (`metrics`) on outputs")
    enforce_eager: bool = option(False, "run every step through Python, none from a record")
    tensor_parallel_size: int = option(1, "GPUs that share each layer (this release: 1)")
    pipeline_parallel_size: int = option(1, "GPUs that share the stack of layers (this release: 1)")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            choices = field.metadata.get("choices")
            value = getattr(self, field.name)
            optional = field.default is None and value is None
            if not choices:
                _check_kind(field.name, value, str(field.type))
            elif not optional and value not in choices:
                raise ConfigError(
                    f"{field.name} must be one of {', '.join(choices)}; got {value!r}"
                    f"{suggest(str(value), choices)}",
                    param=field.name,
                )
        for name in ("threads", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size",
                     "kv_cache_memory_bytes", "num_gpu_blocks_override", "max_waiting_requests",
                     "max_waiting_tokens"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(
                    f"{name} must be a whole number above 0; got {value!r}", param=name
                )
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            if getattr(self, name) != 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is not supported in this release; leave it at 1",
                    param=name,
                )
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                f"gpu_memory_utilization must be in (0, 1]; got {self.gpu_memory_utilization!r}",
                param="gpu_memory_utilization",
            )
        if not 0 <= self.session_cache_share <= 1:
            raise ConfigError(
                f"session_cache_share must be in [0, 1]; got {self.session_cache_share!r}",
                param="session_cache_share",
            )
        if not self.session_ttl >= 0:
            raise ConfigError(
                f"session_ttl must be 0 or more seconds; got {self.session_ttl!r}",
                param="session_ttl",
            )
        if self.max_logprobs < -1:
            raise ConfigError(
                f"max_logprobs must be -1 or more; got {self.max_logprobs!r}", param="max_logprobs"
            )

    @classmethod
    def from_options(cls, **options: Any) -> EngineConfig:
        """Make a config from keyword options; a `torch.dtype` may stand for its name.

        Raises:
            UnknownParamError: naming the nearest option that exists.
        """
        if "task" in options:  # vLLM's name of `runner` until 0.13
            task = options.pop("task")
            options.setdefault("runner", task if task in ("auto", "generate") else "pooling")
        known = {field.name for field in dataclasses.fields(cls)}
        for name in options:
            if name in ELSEWHERE:
                raise UnknownParamError(
                    f"{name!r} is not an engine option: {ELSEWHERE[name]}", param=name
                )
            if name not in known:
                raise UnknownParamError(
                    f"unknown engine option {name!r}{suggest(name, known)}", param=name
                )
        if "dtype" in options:
            name = str(options["dtype"]).removeprefix("torch.")
            options["dtype"] = {"half": "float16", "float": "float32"}.get(name, name)
        return cls(**options)

    def resolve(self, limits: ModelLimits) -> EngineConfig:
        """A config in which every choice left open is made.

        Args:
            limits: what the loaded model and the chosen device say.

        Raises:
            ConfigError: `max_model_len` beyond what the model was made for.
        """
        max_model_len = self.max_model_len or limits.usual_length or limits.max_positions
        if max_model_len > limits.max_positions:
            raise ConfigError(
                f"max_model_len={max_model_len} is more than the {limits.max_positions} tokens that the "
                "model's config allows; lower it, or raise the model's limit with hf_overrides="
                '{"max_position_embeddings": ...} if you know that it can take it',
                param="max_model_len",
            )
        budget = self.max_num_batched_tokens or (2048 if limits.device == "cpu" else 8192)
        block_size = self.block_size
        max_waiting_requests = self.max_waiting_requests or (1 << 16 if limits.whole else 1024)
        max_waiting_tokens = self.max_waiting_tokens
        if limits.whole:
            max_waiting_tokens = max_waiting_tokens or 1 << 22
            block_size = max_model_len  # a text takes one block, of no memory
            if self.max_num_batched_tokens is None:
                budget = max(budget, max_model_len)
            elif budget < max_model_len:
                raise ConfigError(
                    f"max_num_batched_tokens={budget} is less than the {max_model_len} tokens of the longest "
                    "text, which this model computes at once; raise it, or lower max_model_len",
                    param="max_num_batched_tokens",
                )
        return dataclasses.replace(
            self,
            dtype=limits.dtype,
            device=limits.device,
            max_model_len=max_model_len,
            max_num_batched_tokens=budget,
            block_size=block_size,
            max_waiting_requests=max_waiting_requests,
            max_waiting_tokens=max_waiting_tokens,
            max_num_seqs=min(self.max_num_seqs, budget),
        )


def _check_kind(name: str, value: object, annotation: str) -> None:
    kind, _, optional = annotation.partition(" | ")
    if value is None and optional:
        return
    expected, words = KINDS[kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{name} must be {words}; got {value!r}", param=name)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What `EngineConfig.resolve` must know of model and device.

    Args:
        max_positions: longest sequence that the model's config allows.
        dtype: "bfloat16", "float16" or "float32".
        device: "cpu" or "cuda".
        usual_length: what it was trained for, where its files say so; the default of `max_model_len`.
        whole: a text is computed in one step, and nothing is cached: an encoder.
    """

    max_positions: int
    dtype: str
    device: str
    usual_length: int | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The KV cache as it was made: `num_blocks` blocks of `block_size` tokens."""

    num_blocks: int
    block_size: int
    enable_prefix_caching: bool = True

    @property
    def num_tokens(self) -> int:
        return self.num_blocks * self.block_size

    def check_holds(self, max_model_len: int) -> None:
        """Raise CacheTooSmallError unless one request of `max_model_len` tokens fits alone."""
        needed = math.ceil(max_model_len / self.block_size)
        if self.num_blocks < needed:
            raise CacheTooSmallError(
                f"the KV cache holds {self.num_blocks} blocks of {self.block_size} tokens, but one "
                f"request of max_model_len={max_model_len} needs {needed}: raise "
                f"kv_cache_memory_bytes or gpu_memory_utilization, or set max_model_len to at most "
                f"{self.num_tokens}",
                param="kv_cache_memory_bytes",
            )


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Limits that the scheduler keeps in every step."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    policy: str = "fcfs"


EngineArgs = AsyncEngineArgs = EngineConfig  # vLLM's names
