"""Figures of one engine, under vLLM's names. Written by the engine thread, read by anyone.

A step writes a few integers here; whatever takes longer is left to the reader (`snapshot`) or done once
for each request.
"""

from __future__ import annotations

from collections import Counter as Count
from collections import deque

from quire.config import CacheConfig, EngineConfig
from quire.core.scheduler import Scheduler
from quire.engine.backlog import Backlog
from quire.engine.figures import Counter, Gauge, Labels, Metric, Tally, one_two_five
from quire.engine.records import RequestRecord
from quire.outputs import RequestMetrics
from quire.request import FinishReason

# vLLM's borders, so that its dashboards show like with like.
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
               10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
EACH_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
              10.0, 20.0, 40.0, 80.0)  # fmt: skip
WHOLE_REQUEST = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
                 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SEQUENCES = (1, 2, 5, 10, 20)

WINDOW = 10.0  # seconds that rates are taken over
SAMPLE_EVERY = 0.5  # seconds


class EngineMetrics:
    """What an engine has done since it started, and what it is doing now.

    Args:
        config: resolved.
        cache: as it was made.
        backlog: what waits for its first step.
        model_name: the label `model_name`.
        now: seconds on the engine's clock.
    """

    def __init__(
        self,
        config: EngineConfig,
        cache: CacheConfig,
        backlog: Backlog,
        model_name: str,
        now: float,
    ) -> None:
        assert config.max_model_len is not None, "resolved"
        self._config = config
        self._cache = cache
        self._backlog = backlog
        self._model_name = model_name
        self.num_running = 0
        self.num_left_waiting = 0  # by the last step
        self.kv_cache_usage = 0.0  # share of the blocks that running requests hold
        self.num_sessions = self.num_session_blocks = self.session_hit_tokens = 0
        self.num_steps = 0
        self.busy_seconds = 0.0
        self.prompt_tokens = 0  # of prompts whose first token has come
        self.cached_prompt_tokens = 0  # of these, found in the prefix cache
        self.generation_tokens = 0
        self.queried_tokens = 0  # looked up in the prefix cache, by sequences
        self.hit_tokens = 0
        self.num_preemptions = 0
        self.finished: Count[str] = Count()  # sequences, by finish reason
        self._samples = deque([(now, 0, 0)], maxlen=round(2 * WINDOW / SAMPLE_EVERY))
        tokens = one_two_five(config.max_model_len)
        self._step_tokens = Tally(STEP_TOKENS)
        self._first_token = Tally(FIRST_TOKEN)
        self._between_tokens = Tally(EACH_TOKEN)
        self._per_token = Tally(EACH_TOKEN)
        self._whole = Tally(WHOLE_REQUEST)
        self._queued = Tally(WHOLE_REQUEST)
        self._prefill = Tally(WHOLE_REQUEST)
        self._decode = Tally(WHOLE_REQUEST)
        self._inference = Tally(WHOLE_REQUEST)
        self._prompt_lengths = Tally(tokens)
        self._generation_lengths = Tally(tokens)
        self._longest_generations = Tally(tokens)
        self._max_tokens = Tally(tokens)
        self._sequences = Tally(SEQUENCES)

    # ------------------------------------------------------------------ in every step

    def record_load(self, scheduler: Scheduler) -> None:
        """Requests came, advanced or left."""
        self.num_running = scheduler.num_running
        self.num_left_waiting = scheduler.num_waiting
        self.kv_cache_usage = scheduler.kv.usage
        self.num_preemptions = scheduler.num_preemptions
        sessions = scheduler.kv.sessions
        self.num_sessions, self.num_session_blocks = sessions.num_sessions, sessions.num_blocks
        self.session_hit_tokens = sessions.num_hits * self._cache.block_size

    def record_step(self, now: float, seconds: float, tokens: int) -> None:
        """A step of `tokens` has ended after `seconds`."""
        self.num_steps += 1
        self.busy_seconds += seconds
        self._step_tokens.add(tokens)
        if now - self._samples[-1][0] >= SAMPLE_EVERY:
            self._samples.append((now, self.prompt_tokens, self.generation_tokens))

    def record_tokens(self, generated: int) -> None:
        """A step gave so many tokens to all sequences together."""
        self.generation_tokens += generated

    def record_intervals(self, seconds: float, sequences: int) -> None:
        """So many sequences had their last tokens `seconds` apart."""
        self._between_tokens.add(seconds, sequences)

    # ------------------------------------------------------------------ once for each request

    def record_start(self, queried: int, hit: int) -> None:
        """A sequence was scheduled for the first time; `hit` of its tokens were in the prefix cache."""
        self.queried_tokens += queried
        self.hit_tokens += hit

    def record_first_token(self, metrics: RequestMetrics, prompt: int, cached: int) -> None:
        """A request's prompt has been computed, save its `cached` tokens."""
        self.prompt_tokens += prompt
        self.cached_prompt_tokens += cached
        if metrics.time_to_first_token is not None:
            self._first_token.add(metrics.time_to_first_token)

    def record_pooled(self, prompt: int, cached: int) -> None:
        """A vector has been made of a prompt of which `cached` tokens were in the prefix cache."""
        self.prompt_tokens += prompt
        self.cached_prompt_tokens += cached

    def record_finish(self, record: RequestRecord) -> None:
        """A request and all its sequences have left the engine."""
        self.finished.update(record.finish_reasons)
        self._prompt_lengths.add(record.num_prompt_tokens)
        for length in record.num_generated_tokens:
            self._generation_lengths.add(length)
        self._longest_generations.add(max(record.num_generated_tokens))
        self._sequences.add(len(record.finish_reasons))
        if record.params.max_tokens is not None:
            self._max_tokens.add(record.params.max_tokens)
        metrics, longest = record.metrics, max(record.num_generated_tokens)
        for tally, seconds in (
            (self._whole, metrics.total_time),
            (self._queued, metrics.queue_time),
            (self._prefill, metrics.prefill_time),
            (self._decode, metrics.decode_time),
            (self._inference, metrics.inference_time),
        ):
            if seconds is not None:
                tally.add(seconds)
        if metrics.decode_time is not None and longest > 1:
            self._per_token.add(metrics.decode_time / (longest - 1))

    # ------------------------------------------------------------------ readers

    @property
    def num_waiting(self) -> int:
        """Sequences without a seat, those that came since the last step included."""
        return max(self.num_left_waiting, self._backlog.num_waiting)

    def rates(self, now: float) -> tuple[float, float]:
        """Prompt and generated tokens a second, over the last `WINDOW` seconds."""
        samples = tuple(self._samples)
        start = samples[0]
        for sample in samples:
            if sample[0] <= now - WINDOW:
                start = sample  # nothing, or next to nothing, came between it and the window
        seconds = max(min(now - start[0], WINDOW), 1e-3)
        return (
            (self.prompt_tokens - start[1]) / seconds,
            (self.generation_tokens - start[2]) / seconds,
        )

    def snapshot(self, model_name: str | None = None) -> list[Metric]:
        """All figures, for `LLM.get_metrics` and the endpoint.

        Args:
            model_name: value of the label `model_name`; default: the model's own name.
        """
        labels = (("model_name", model_name or self._model_name), ("engine", "0"))
        return [*self._gauges(labels), *self._counters(labels), *self._histograms(labels)]

    def _gauges(self, labels: Labels) -> list[Metric]:
        config, cache = self._config, self._cache
        cache_config = {
            "block_size": cache.block_size,
            "num_gpu_blocks": cache.num_blocks,
            "enable_prefix_caching": cache.enable_prefix_caching,
            "cache_dtype": config.dtype,
            "gpu_memory_utilization": config.gpu_memory_utilization,
        }
        cache_labels = tuple((name, str(value)) for name, value in cache_config.items())
        waiting = self.num_waiting
        return [
            Gauge(
                "vllm:num_requests_running", "Sequences in the last step.", labels, self.num_running
            ),
            Gauge("vllm:num_requests_waiting", "Sequences that wait for a seat.", labels, waiting),
            Gauge(
                "vllm:num_requests_waiting_by_reason",
                "Sequences that wait for a seat, by what they wait for.",
                (*labels, ("reason", "capacity")),
                waiting,
            ),
            Gauge(
                "vllm:kv_cache_usage_perc",
                "Share of the KV cache that requests hold; 1 is all of it.",
                labels,
                self.kv_cache_usage,
            ),
            Gauge(
                "quire:sessions",
                "Sessions whose blocks are retained, as of the last step.",
                labels,
                self.num_sessions,
            ),
            Gauge(
                "quire:session_blocks",
                "Blocks that are retained for sessions.",
                labels,
                self.num_session_blocks,
            ),
            Gauge("vllm:cache_config_info", "How the KV cache was made.", labels + cache_labels, 1),
        ]

    def _counters(self, labels: Labels) -> list[Metric]:
        counts = (
            ("vllm:prompt_tokens", "Tokens of prompts that were answered.", self.prompt_tokens),
            (
                "vllm:prompt_tokens_cached",
                "Of these, tokens found in the prefix cache.",
                self.cached_prompt_tokens,
            ),
            ("vllm:generation_tokens", "Tokens generated.", self.generation_tokens),
            (
                "vllm:prefix_cache_queries",
                "Tokens looked up in the prefix cache.",
                self.queried_tokens,
            ),
            ("vllm:prefix_cache_hits", "Tokens found in the prefix cache.", self.hit_tokens),
            (
                "vllm:num_preemptions",
                "Sequences that gave their blocks back and waited again.",
                self.num_preemptions,
            ),
            (
                "quire:session_hit_tokens",
                "Tokens of prompts found in blocks that were retained for their session.",
                self.session_hit_tokens,
            ),
            ("quire:steps", "Steps of the engine.", self.num_steps),
            ("quire:busy_seconds", "Seconds spent in steps.", self.busy_seconds),
        )
        finished = dict(self.finished)
        return [
            *(Counter(name, help, labels, value) for name, help, value in counts),
            *(
                Counter(
                    "vllm:request_success",
                    "Sequences that ended, by finish reason.",
                    (*labels, ("finished_reason", reason.value)),
                    finished.get(reason.value, 0),
                )
                for reason in FinishReason
            ),
            *(
                Counter(
                    "vllm:admission_rejections",
                    "Requests refused because too much waited.",
                    (*labels, ("reason", reason)),
                    count,
                )
                for reason, count in self._backlog.refused.items()
            ),
        ]

    def _histograms(self, labels: Labels) -> list[Metric]:
        tallies = (
            ("vllm:iteration_tokens_total", "Tokens computed in a step.", self._step_tokens),
            (
                "vllm:time_to_first_token_seconds",
                "From arrival to the first token.",
                self._first_token,
            ),
            (
                "vllm:inter_token_latency_seconds",
                "Between two tokens of a sequence.",
                self._between_tokens,
            ),
            (
                "vllm:request_time_per_output_token_seconds",
                "Between two tokens, the mean over a request.",
                self._per_token,
            ),
            ("vllm:e2e_request_latency_seconds", "From arrival to the end.", self._whole),
            (
                "vllm:request_queue_time_seconds",
                "From arrival to the first step.",
                self._queued,
            ),
            (
                "vllm:request_prefill_time_seconds",
                "From the first step to the first token.",
                self._prefill,
            ),
            (
                "vllm:request_decode_time_seconds",
                "From the first token to the last.",
                self._decode,
            ),
            (
                "vllm:request_inference_time_seconds",
                "From the first step to the last token.",
                self._inference,
            ),
            ("vllm:request_prompt_tokens", "Tokens of a prompt.", self._prompt_lengths),
            (
                "vllm:request_generation_tokens",
                "Tokens of a generated sequence.",
                self._generation_lengths,
            ),
            (
                "vllm:request_max_num_generation_tokens",
                "Tokens of a request's longest sequence.",
                self._longest_generations,
            ),
            ("vllm:request_params_max_tokens", "max_tokens of a request.", self._max_tokens),
            ("vllm:request_params_n", "Sequences of a request.", self._sequences),
        )
        return [tally.read(name, help, labels) for name, help, tally in tallies]
