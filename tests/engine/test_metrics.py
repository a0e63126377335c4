"""What an engine tells of itself: figures, records of requests, a look at what runs, its health."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from fake_executor import FakeExecutor, scripted_tokens
from quire import LLM, Engine, SamplingParams
from quire.engine.figures import Counter, Gauge, Histogram, Metric, Tally, one_two_five
from quire.engine.records import RequestRecord
from quire.errors import EngineDeadError
from quire.plan import StepPlan
from simulated_engines import LONG, Clock, engine_at, held_engine, reason, settle, submit

# The names that vLLM's dashboards ask for.
COUNTERS = [
    "prompt_tokens",
    "prompt_tokens_cached",
    "generation_tokens",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "num_preemptions",
    "request_success",
    "admission_rejections",
]
GAUGES = [
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_waiting_by_reason",
    "kv_cache_usage_perc",
    "cache_config_info",
]
HISTOGRAMS = [
    "iteration_tokens_total",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
    "request_params_max_tokens",
    "request_params_n",
]


def figures(engine: Engine) -> dict[str, Metric]:
    """By name; `name{value}` where figures differ in their last label. Waits for the step that runs."""
    settle(engine)
    return figures_now(engine)


def figures_now(engine: Engine) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for metric in engine.metrics.snapshot("m"):
        assert metric.labels[:2] == (("model_name", "m"), ("engine", "0"))
        extra = metric.labels[2:] if len(metric.labels) == 3 else ()
        name = metric.name + "".join(f"{{{value}}}" for _, value in extra)
        assert name not in found
        found[name.removeprefix("vllm:")] = metric
    return found


def value(metric: Metric) -> float:
    assert isinstance(metric, (Counter, Gauge))
    return metric.value


def histogram(metric: Metric) -> tuple[int, float]:
    assert isinstance(metric, Histogram)
    assert metric.buckets[-1] == (float("inf"), metric.count)
    return metric.count, metric.sum


class Records:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.records: queue.SimpleQueue[RequestRecord] = queue.SimpleQueue()

    def on_finish(self, record: RequestRecord) -> None:
        self.records.put(record)

    def next(self) -> RequestRecord:
        return self.records.get(timeout=LONG)


def test_all_names_are_there_before_the_first_request() -> None:
    with engine_at(Clock()) as engine:
        kinds: dict[type[Metric], set[str]] = {Counter: set(), Gauge: set(), Histogram: set()}
        for metric in engine.metrics.snapshot():
            assert metric.help
            if metric.name.startswith("vllm:"):
                kinds[type(metric)].add(metric.name.removeprefix("vllm:"))
        assert list(kinds.values()) == [set(COUNTERS), set(GAUGES), set(HISTOGRAMS)]
        [config] = [m for m in engine.metrics.snapshot() if m.name == "vllm:cache_config_info"]
        assert {("block_size", "4"), ("num_gpu_blocks", "64")} < set(config.labels)


def test_counters_count_tokens_and_ends() -> None:
    with engine_at(Clock()) as engine:
        prompt = list(range(1, 10))
        streams = [
            submit(engine, prompt, params={"max_tokens": 5}),
            submit(engine, [4], params={"max_tokens": 3, "n": 2, "temperature": 1}),
        ]
        assert [reason(stream) for stream in streams] == ["length", "length"]
        assert reason(submit(engine, prompt, params={"max_tokens": 5})) == "length"
        found = figures(engine)
        assert value(found["prompt_tokens"]) == 9 + 1 + 9
        assert value(found["prompt_tokens_cached"]) == 8
        assert value(found["generation_tokens"]) == 5 + 2 * 3 + 5
        assert value(found["prefix_cache_queries"]) == 9 + 2 + 9
        assert value(found["prefix_cache_hits"]) == 8
        assert value(found["request_success{length}"]) == 4
        assert value(found["request_success{abort}"]) == 0
        assert value(found["quire:steps"]) == value(found["quire:busy_seconds"])
        assert histogram(found["request_params_n"]) == (3, 1 + 2 + 1)
        assert histogram(found["request_params_max_tokens"]) == (3, 13)
        assert histogram(found["request_prompt_tokens"]) == (3, 19)
        assert histogram(found["request_generation_tokens"]) == (4, 16)
        assert histogram(found["iteration_tokens_total"])[1] == 9 + 2 + 1 + 4 + 2 * 2 + 4


def test_times_of_a_request() -> None:
    """One request alone, steps of one second: a second to the first token, then one for each."""
    with engine_at(Clock()) as engine:
        assert reason(submit(engine, [1, 2], params={"max_tokens": 5})) == "length"
        found = figures(engine)
        assert histogram(found["time_to_first_token_seconds"]) == (1, 1.0)
        assert histogram(found["inter_token_latency_seconds"]) == (4, 4.0)
        assert histogram(found["request_time_per_output_token_seconds"]) == (1, 1.0)
        assert histogram(found["e2e_request_latency_seconds"]) == (1, 5.0)
        assert histogram(found["request_queue_time_seconds"]) == (1, 0.0)
        assert histogram(found["request_prefill_time_seconds"]) == (1, 1.0)
        assert histogram(found["request_decode_time_seconds"]) == (1, 4.0)
        assert histogram(found["request_inference_time_seconds"]) == (1, 5.0)


def test_a_request_that_waits_has_a_queue_time() -> None:
    with held_engine(clock := Clock(), max_num_seqs=1) as (engine, executor):
        first = submit(engine, [1], params={"max_tokens": 1})
        assert executor.at_gate.wait(LONG)
        second = submit(engine, [2], params={"max_tokens": 1})
        clock.now += 7
        executor.gate.set()
        assert [reason(first), reason(second)] == ["length", "length"]
        assert histogram(figures(engine)["request_queue_time_seconds"]) == (2, 7.0)


def test_a_preempted_sequence_is_counted_and_its_pause_is_an_interval() -> None:
    with engine_at(Clock(), num_blocks=16, max_model_len=64) as engine:
        streams = [submit(engine, [i], params={"max_tokens": 40}) for i in (1, 2)]
        assert [reason(stream) for stream in streams] == ["length"] * 2
        found = figures(engine)
        assert value(found["num_preemptions"]) > 0
        count, seconds = histogram(found["inter_token_latency_seconds"])
        assert count == 2 * 39 and seconds > count


def test_refusals_are_counted() -> None:
    with held_engine(max_num_seqs=1, max_waiting_requests=1) as (engine, executor):
        submit_kept = [submit(engine, [1])]
        assert executor.at_gate.wait(LONG)
        submit_kept.append(submit(engine, [2]))
        with pytest.raises(Exception, match="busy"):
            submit(engine, [3], bounded=True)
        assert value(figures_now(engine)["admission_rejections{requests}"]) == 1
        assert value(figures_now(engine)["num_requests_waiting"]) == 1


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([0.5], [1, 1, 1]),
        ([1], [1, 1, 1]),
        ([1.5, 2], [0, 2, 2]),
        ([9, 1], [1, 1, 2]),
        ([], [0] * 3),
    ],
)
def test_a_tally_counts_up_to_each_border(values: list[float], counts: list[int]) -> None:
    tally = Tally([1, 2])
    for one in values:
        tally.add(one)
    found = tally.read("name", "help", ())
    assert [count for _, count in found.buckets] == counts
    assert [border for border, _ in found.buckets] == [1, 2, float("inf")]
    assert (found.count, found.sum) == (len(values), sum(values))


def test_borders_of_token_counts() -> None:
    assert one_two_five(120) == (1, 2, 5, 10, 20, 50, 100)


def test_the_faces_show_the_same_figures() -> None:
    with engine_at(Clock()) as engine:
        llm = LLM(engine=engine)
        llm.generate([1], SamplingParams(max_tokens=2, detokenize=False))
        names = {metric.name for metric in llm.get_metrics()}
        assert names == {metric.name for metric in engine.metrics.snapshot()}


# ---------------------------------------------------------------------- records


def test_a_record_for_every_request() -> None:
    listener = Records()
    with engine_at(Clock()) as engine:
        engine.add_listener(listener)
        assert (
            reason(submit(engine, [1, 2, 3], params={"max_tokens": 4}, request_id="a")) == "length"
        )
        record = listener.next()
        assert (record.request_id, record.finish_reasons) == ("a", ("length",))
        assert (record.num_prompt_tokens, record.num_generated_tokens) == (3, (4,))
        assert (record.params.max_tokens, record.error) == (4, None)
        assert record.metrics.total_time == 4.0
        stream = submit(engine, [1], request_id="b", timeout=2, params={"n": 2, "temperature": 1})
        assert next(stream).finished
        assert listener.next().finish_reasons == ("timeout", "timeout")


def test_a_record_says_what_failed() -> None:
    listener = Records()
    executor = FakeExecutor(skip_tokenizer_init=True, fails=lambda ids: "NaN logits")
    with Engine(executor=executor) as engine:
        engine.add_listener(listener)
        assert reason(submit(engine, [1])) == "error"
        record = listener.next()
        assert (record.finish_reasons, record.error) == (("error",), "NaN logits")


def test_a_listener_that_fails_or_is_slow_stops_nobody() -> None:
    class Broken:
        def on_finish(self, record: RequestRecord) -> None:
            raise RuntimeError("no space left")

    listener = Records()
    with engine_at(Clock()) as engine:
        engine.add_listener(Broken())
        engine.add_listener(listener)
        for _ in range(3):
            assert reason(submit(engine, [1], params={"max_tokens": 1})) == "length"
            assert listener.next().finish_reasons == ("length",)


def test_records_of_a_dead_or_closed_engine_are_told_before_close_returns() -> None:
    def break_down(plan: StepPlan) -> None:
        raise EngineDeadError("the device is gone")

    listener = Records()
    with Engine(executor=FakeExecutor(skip_tokenizer_init=True, before_step=break_down)) as engine:
        engine.add_listener(listener)
        kept = submit(engine, [1], request_id="a")
        with pytest.raises(EngineDeadError):
            next(kept)
    record = listener.records.get_nowait()
    assert (record.request_id, record.finish_reasons) == ("a", ("error",))
    with held_engine() as (engine, executor):
        engine.add_listener(listener)
        kept = submit(engine, [1], request_id="b")
        assert executor.at_gate.wait(LONG)
        closing = threading.Thread(target=engine.close)
        closing.start()
        while not engine._thread._closing:
            closing.join(0.001)
        executor.gate.set()
        closing.join(LONG)
    record = listener.records.get_nowait()
    assert (record.request_id, record.finish_reasons) == ("b", ("abort",))


# ---------------------------------------------------------------------- load and health


def test_a_look_at_what_runs() -> None:
    with held_engine(clock := Clock(), max_num_seqs=1) as (engine, executor):
        streams = [submit(engine, [1, 2], request_id="a", params={"max_tokens": 9})]
        assert executor.at_gate.wait(LONG)
        streams.append(submit(engine, [3], request_id="b"))
        clock.now += 3
        load = engine.load()
        assert (load.num_running, load.num_waiting) == (1, 1)
        assert load.kv_cache_usage == 1 / 64
        [running] = load.requests  # the other one has not been taken in yet
        assert (running.request_id, running.running, running.seconds) == ("a", True, 3)
        assert (running.num_prompt_tokens, running.num_generated_tokens) == (2, 0)
        assert running.max_tokens == 9
        executor.gate.set()
        assert [reason(stream) for stream in streams] == ["length"] * 2
        settle(engine)
        assert engine.load().requests == ()


def test_rates_are_of_the_last_seconds() -> None:
    clock = Clock()
    with engine_at(clock, 0.1) as engine:
        prompt = list(range(1, 21))
        assert reason(submit(engine, prompt, params={"max_tokens": 50})) == "length"
        settle(engine)
        load = engine.load()
        assert load.generation_tokens_per_second == pytest.approx(10)
        assert load.prompt_tokens_per_second == pytest.approx(20 / 5)
        clock.now += 60
        assert engine.load().generation_tokens_per_second == pytest.approx(0, abs=0.6)
        assert reason(submit(engine, prompt, params={"max_tokens": 50})) == "length"
        settle(engine)
        assert engine.load().generation_tokens_per_second == pytest.approx(5, abs=0.6)


def test_an_engine_without_steps_is_stuck_only_while_work_waits() -> None:
    with held_engine(clock := Clock()) as (engine, executor):
        clock.now += 1000
        assert engine.health().ok  # idle for long, and well
        stream = submit(engine, [1])
        assert executor.at_gate.wait(LONG)
        clock.now += 29
        assert engine.health().ok
        clock.now += 2
        health = engine.health()
        assert (health.status, health.ok) == ("stuck", False)
        assert "no step has ended for 31 s" in str(health.reason)
        executor.gate.set()
        assert reason(stream) == "length"
        assert engine.health().ok
    assert engine.health().status == "dead"


def test_a_busy_engine_is_well_as_long_as_steps_end() -> None:
    seen: list[str] = []
    clock = Clock()

    def tick(plan: StepPlan) -> None:
        clock.now += 20
        seen.append(engine.health().status)

    executor = FakeExecutor(skip_tokenizer_init=True, before_step=tick)
    with Engine(executor=executor, clock=clock) as engine:
        assert reason(submit(engine, [1], params={"max_tokens": 9})) == "length"
    assert seen == ["ok"] * 9


def test_tokens_of_a_sequence_that_ended_by_itself() -> None:
    """The end of sequence is a generated token too."""
    script: Any = scripted_tokens({(1,): [5, 6]})
    with engine_at(Clock(), next_token=script) as engine:
        stream = submit(engine, [1], params={"ignore_eos": False})
        assert reason(stream) == "stop"
        assert value(figures(engine)["generation_tokens"]) == 3
        assert value(figures(engine)["request_success{stop}"]) == 1


def test_a_model_that_gives_nan_request_after_request_is_failing() -> None:
    def poisoned(token_ids: Sequence[int]) -> str | None:
        return "NaN" if token_ids[0] == 9 else None

    executor = FakeExecutor(skip_tokenizer_init=True, fails=poisoned)
    with Engine(executor=executor) as engine:

        def ask(first: int) -> str:
            assert reason(submit(engine, [first], params={"max_tokens": 1})) in ("error", "length")
            settle(engine)
            return engine.health().status

        assert [ask(9), ask(9), ask(1), ask(9), ask(9)] == ["ok"] * 5  # a token between
        assert ask(9) == "failing"
        assert ask(1) == "ok"  # it has recovered
