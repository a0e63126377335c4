"""One engine in a process of its own: quire or a peer completes workloads and tells what each call took.

    echo '{"engine": "quire", "model": "FOLDER", ...}' | python benchmarks/engines.py

Other benchmarks start it (`peers.py` does), by the Python in which that engine is installed; so it needs
the standard library alone until it imports the engine. It reads a `Job` as JSON and prints a `Result` as
JSON on its last line. It knows nothing of rounds, ratios and pictures.

WORKLOAD, lengths in tokens:
    fixed:N,P,G     N requests at once, P prompt tokens, G generated tokens each
    mixed:N,P,G     N requests at once, prompts of 16 to P tokens, 8 to G generated
    shared:N,P,Q,G  N requests at once that share a P-token prefix, then Q tokens of their own, G generated

Every request is greedy, has no end of sequence, and is given as random token ids that no call before had.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Request = tuple[list[int], int]  # prompt's ids, tokens to generate
Generate = Callable[[list[Request]], None]
LLAMACPP_BATCH = 2048  # tokens that one call of llama.cpp may take


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run.

    Args:
        engine: one of `ENGINES`.
        model: folder of a model; a .gguf file for llama.cpp.
        dtype: of weights and activations; llama.cpp's is that of its file.
        threads: threads that compute.
        workloads: in this order, each after a short call of the same kind that does not count.
        repeats: calls of each.
        vocab_size: ids are below it.
        max_model_len: longest prompt and completion.
        kv_bytes: what the keys and values of the largest call take.
        seed: of the prompts.
        started: when the process was started, in `time.time()`.
        one_process: keep the engine from starting others, so that its memory can be told.
        options: further arguments of quire's LLM.
    """

    engine: str
    model: str
    dtype: str
    threads: int
    workloads: list[str]
    repeats: int
    vocab_size: int
    max_model_len: int
    kv_bytes: int
    seed: int
    started: float
    one_process: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """What was measured.

    Attributes:
        stages: seconds of each stage from the start of the process to the first token.
        seconds: of each call, by workload.
        generated: tokens that each call generated, by workload.
        peaks: the most memory held while importing, loading and running, in bytes.
    """

    stages: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    generated: dict[str, list[int]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)


def make_requests(workload: str, rng: random.Random, vocab_size: int) -> list[Request]:
    """One call's requests; raises ValueError for a workload that is not one."""
    kind, _, rest = workload.partition(":")
    sizes = [int(part) for part in rest.split(",")]
    if min(sizes) < 1 or len(sizes) != {"fixed": 3, "mixed": 3, "shared": 4}.get(kind):
        raise ValueError(workload)

    def ids(count: int) -> list[int]:
        return [rng.randrange(10, vocab_size) for _ in range(count)]

    number, prompt = sizes[:2]
    if kind == "fixed":
        return [(ids(prompt), sizes[2]) for _ in range(number)]
    if kind == "mixed":
        return [
            (ids(rng.randint(min(16, prompt), prompt)), rng.randint(min(8, sizes[2]), sizes[2]))
            for _ in range(number)
        ]
    prefix = ids(prompt)
    return [(prefix + ids(sizes[2]), sizes[3]) for _ in range(number)]


def quire(job: Job, imported: Callable[[], None]) -> Generate:
    """As its users call it: one call for all requests."""
    from quire import LLM, SamplingParams

    imported()
    llm = LLM(
        job.model,
        dtype=job.dtype,
        threads=job.threads,
        skip_tokenizer_init=True,
        max_model_len=job.max_model_len,
        **job.options,
    )
    return _offline(llm, SamplingParams)


def vllm(job: Job, imported: Callable[[], None]) -> Generate:
    """The same calls as quire's."""
    gib = math.ceil(1.5 * job.kv_bytes / (1 << 30))  # it takes all of it at once
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(gib, 1)))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if job.one_process:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    imported()
    llm = LLM(
        model=job.model,
        dtype=job.dtype,
        skip_tokenizer_init=True,
        max_model_len=job.max_model_len,
    )
    return _offline(llm, SamplingParams)


def _offline(llm: Any, sampling_params: Any) -> Generate:
    def generate(requests: list[Request]) -> None:
        params = [
            sampling_params(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
            for _, count in requests
        ]
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in requests]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        lengths = [len(output.outputs[0].token_ids) for output in outputs]
        assert lengths == [count for _, count in requests], lengths

    return generate


def hf(job: Job, imported: Callable[[], None]) -> Generate:
    """transformers' generate on one left-padded batch, as its users write it, to the longest's end."""
    import torch
    import transformers

    torch.set_num_threads(job.threads)
    transformers.utils.logging.disable_progress_bar()
    imported()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job.model, dtype=getattr(torch, job.dtype)
    )
    model.generation_config.eos_token_id = None

    def generate(requests: list[Request]) -> None:
        width = max(len(prompt) for prompt, _ in requests)
        count = max(count for _, count in requests)
        padding = [width - len(prompt) for prompt, _ in requests]
        rows = zip(requests, padding, strict=True)
        ids = torch.tensor([[0] * pad + prompt for (prompt, _), pad in rows])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip

    return generate


def llamacpp(job: Job, imported: Callable[[], None]) -> Generate:
    """llama.cpp's own calls: all prompts, then one token for every live sequence at a time."""
    import llama_cpp as api
    import numpy as np

    imported()
    silent = api.llama_log_callback(lambda *_: None)
    api.llama_log_set(silent, ctypes.c_void_p(0))
    api.llama_backend_init()
    model = api.llama_model_load_from_file(job.model.encode(), api.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {job.model}")
    vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

    # `silent` must live as long as its address is in use.
    def generate(requests: list[Request], silent: Any = silent) -> None:
        params = api.llama_context_default_params()
        params.n_ctx = sum(len(prompt) + count + 8 for prompt, count in requests) + 256
        params.n_batch, params.n_ubatch, params.n_seq_max = LLAMACPP_BATCH, 512, len(requests)
        params.n_threads = params.n_threads_batch = job.threads
        params.kv_unified = True
        context = api.llama_init_from_model(model, params)
        batch = api.llama_batch_init(LLAMACPP_BATCH, 0, len(requests))
        last = [0] * len(requests)  # each sequence's last token

        def decode(entries: list[tuple[int, int, int, bool]]) -> None:
            """Compute (token, position, sequence, whether to choose what follows) entries."""
            batch.n_tokens = len(entries)
            for i, (token, position, sequence, chooses) in enumerate(entries):
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, chooses
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            if api.llama_decode(context, batch) != 0:
                raise SystemExit("llama_decode failed")
            for i, (_, _, sequence, chooses) in enumerate(entries):
                if chooses:
                    logits = api.llama_get_logits_ith(context, i)
                    last[sequence] = int(np.ctypeslib.as_array(logits, (vocab_size,)).argmax())

        prompts = [
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, (prompt, _) in enumerate(requests)
            for position, token in enumerate(prompt)
        ]
        for begin in range(0, len(prompts), LLAMACPP_BATCH):
            decode(prompts[begin : begin + LLAMACPP_BATCH])
        for step in range(max(count for _, count in requests) - 1):
            decode(
                [
                    (last[sequence], len(prompt) + step, sequence, True)
                    for sequence, (prompt, count) in enumerate(requests)
                    if step < count - 1
                ]
            )
        api.llama_batch_free(batch)
        api.llama_free(context)

    return generate


ENGINES = {"quire": quire, "vllm": vllm, "hf": hf, "llamacpp": llamacpp}


def peak_memory() -> int:
    """The most memory that this process held since the last call, in bytes; 0 where that is not told.

    Pages of files mapped into it count, so that weights do, in whatever way they are read.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return 0
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def run(job: Job) -> Result:
    """Make the engine and run all of a job's calls."""
    result = Result()
    last = job.started

    def done(stage: str) -> None:
        nonlocal last
        now = time.time()
        result.stages[stage], last = now - last, now

    def imported() -> None:
        done("import")
        result.peaks["importing"] = peak_memory()

    done("python")
    generate = ENGINES[job.engine](job, imported)
    done("load")
    result.peaks["loading"] = peak_memory()
    rng = random.Random(job.seed)
    generate(make_requests("fixed:1,8,1", rng, job.vocab_size))
    done("first token")
    for workload in job.workloads:
        generate(make_requests(workload, rng, job.vocab_size)[:2])
        seconds, generated = [], []
        for _ in range(job.repeats):
            requests = make_requests(workload, rng, job.vocab_size)
            start = time.perf_counter()
            generate(requests)
            seconds.append(time.perf_counter() - start)
            generated.append(sum(count for _, count in requests))
        result.seconds[workload], result.generated[workload] = seconds, generated
    result.peaks["running"] = peak_memory()
    return result


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.remove(
        str(Path(__file__).parent)
    )  # an engine's `import kernels` is not for `kernels.py`
    result = run(Job(**json.load(sys.stdin)))
    print("\n" + json.dumps(dataclasses.asdict(result)), flush=True)


if __name__ == "__main__":
    main()
