"""Engines beside each other, shared, let go of, left open at exit, forked and interrupted."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import fake_executor
from quire import LLM, AsyncLLM, Engine, EngineConfig, SamplingParams
from quire.engine import sharing
from quire.errors import EngineClosedError
from tiny_models import make_checkpoint

PROMPTS = ["Hello", "The sea ", "日本"]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
ENDLESS = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
OPTIONS: dict[str, Any] = {"dtype": "float32", "max_model_len": 64, "num_gpu_blocks_override": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("models")
    return {name: make_checkpoint(parent / name, name) for name in ("llama", "qwen2")}


def texts(llm: LLM) -> list[str]:
    return [output.outputs[0].text for output in llm.generate(PROMPTS, GREEDY)]


def is_dead(engine: Engine) -> bool:
    return not engine._thread._thread.is_alive()


def test_two_models_in_one_process(folders: dict[str, Path]) -> None:
    alone = {}
    for name, folder in folders.items():
        with LLM(str(folder), **OPTIONS) as llm:
            alone[name] = texts(llm)
    assert alone["llama"] != alone["qwen2"]
    with LLM(str(folders["llama"]), **OPTIONS) as one, LLM(str(folders["qwen2"]), **OPTIONS) as two:
        assert one.engine is not two.engine
        got: dict[str, list[list[str]]] = {"llama": [], "qwen2": []}
        threads = [
            threading.Thread(target=lambda name=name, llm=llm: got[name].append(texts(llm)))
            for name, llm in (("llama", one), ("qwen2", two)) * 3
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == {name: [alone[name]] * 3 for name in alone}


def test_faces_with_equal_arguments_share_an_engine(folders: dict[str, Path]) -> None:
    folder = str(folders["llama"])
    first, second = LLM(folder, **OPTIONS), LLM(model=folder, **OPTIONS)
    third, other = AsyncLLM(folder, **OPTIONS), LLM(folder, **{**OPTIONS, "block_size": 8})
    engine, others = first.engine, other.engine
    assert engine is second.engine is third.engine
    assert others is not engine
    first.close()
    first.close()
    other.close()
    assert is_dead(others)
    third.close()
    assert not is_dead(engine)
    assert texts(second)
    second.close()
    assert is_dead(engine)
    with pytest.raises(EngineClosedError):
        second.generate("x")
    with LLM(folder, **OPTIONS) as again:
        assert again.engine is not engine
        assert texts(again)


def test_a_closed_face_is_closed_though_others_share_its_engine(folders: dict[str, Path]) -> None:
    folder = str(folders["llama"])
    with LLM(folder, **OPTIONS) as other:
        first, second = LLM(folder, **OPTIONS), AsyncLLM(folder, **OPTIONS)
        first.close()
        with pytest.raises(EngineClosedError, match="this LLM was closed"):
            first.generate("x")
        second.close()
        with pytest.raises(EngineClosedError, match="this AsyncLLM was closed"):
            second.get_metrics()
        assert texts(other)


def test_an_engine_of_ones_own_is_not_closed_by_its_faces(folders: dict[str, Path]) -> None:
    with Engine(EngineConfig(model=str(folders["llama"]), **OPTIONS)) as engine:
        with LLM(engine=engine) as llm:
            answer = texts(llm)
        assert texts(LLM(engine=engine)) == answer


def test_a_dead_engine_is_not_shared_again(folders: dict[str, Path]) -> None:
    folder = str(folders["llama"])
    first = LLM(folder, **OPTIONS)
    first.engine.close()
    with LLM(folder, **OPTIONS) as second:
        assert second.engine is not first.engine
        first.close()
        assert not is_dead(second.engine)
        assert texts(second)


def test_a_face_that_is_collected_lets_go_of_its_engine(folders: dict[str, Path]) -> None:
    folder = str(folders["llama"])
    first, second = LLM(folder, **OPTIONS), AsyncLLM(folder, **OPTIONS)
    engine = first.engine
    del first
    gc.collect()
    assert not is_dead(engine)
    del second
    gc.collect()
    assert is_dead(engine)


def test_a_face_may_be_collected_while_another_engine_is_made(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces in circles are collected whenever Python likes, on whatever thread that is."""

    def make_slowly(config: EngineConfig) -> Engine:
        gc.collect()
        collector = threading.Thread(target=gc.collect)
        collector.start()
        collector.join()
        return Engine(config)

    first = LLM(str(folders["llama"]), **OPTIONS)
    engine = first.engine
    first.circle = first  # type: ignore[attr-defined]
    del first
    monkeypatch.setattr(sharing, "Engine", make_slowly)
    with LLM(str(folders["qwen2"]), **OPTIONS) as second:
        assert is_dead(engine)
        assert texts(second)


def test_a_stream_keeps_its_face(folders: dict[str, Path]) -> None:
    """`for output in LLM(...).stream(...)`: nobody else holds the LLM."""
    folder = str(folders["llama"])
    with LLM(folder, **OPTIONS) as llm:
        whole = llm.generate("Hello", GREEDY)[0].outputs[0].text
    stream = LLM(folder, **OPTIONS).stream("Hello", GREEDY)
    gc.collect()
    assert "".join(chain(*(output.outputs[0].text for output in stream))) == whole


# ------------------------------------------------------------------ in processes of their own


def run(code: str, *arguments: object) -> str:
    """What a program prints; it must end soon, by itself and without a word of complaint."""
    support = str(Path(fake_executor.__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([support, *sys.path])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


STREAM_AT_EXIT = """
import sys
from quire import LLM, SamplingParams
llm = LLM(sys.argv[1], dtype="float32", num_gpu_blocks_override=32)
stream = llm.stream("Hello", SamplingParams(max_tokens=None, ignore_eos=True))
print(len(next(stream).outputs))
"""

FAKE_STREAM_AT_EXIT = """
import sys, threading
from fake_executor import FakeExecutor
from quire import Engine, SamplingParams
engine = Engine(executor=FakeExecutor(
    skip_tokenizer_init=True, max_model_len=1 << 19, num_blocks=1 << 17, next_token=lambda ids: 5
))
params = engine.resolve(SamplingParams(max_tokens=None, detokenize=False))
streams = [engine.submit(engine.parse([1]), params) for _ in range(3)]
for stream in streams:
    next(stream)
print([stream.finished for stream in streams])
"""


def test_exit_without_close_while_a_stream_runs(folders: dict[str, Path]) -> None:
    assert run(STREAM_AT_EXIT, folders["llama"]) == "1\n"


def test_exit_without_close_of_an_engine_of_ones_own() -> None:
    assert run(FAKE_STREAM_AT_EXIT) == "[False, False, False]\n"


FORK = """
import os, signal, sys, threading
from fake_executor import FakeExecutor
from quire import Engine, SamplingParams
from quire.errors import EngineDeadError

engine = Engine(executor=FakeExecutor(skip_tokenizer_init=True))
prompt, params = engine.parse([1]), engine.resolve(SamplingParams(detokenize=False))
stream = engine.submit(prompt, params)
held, go_on = threading.Event(), threading.Event()

def hold():  # as the engine's thread may, at the moment of the fork
    with engine._thread._lock:
        held.set()
        go_on.wait()

if sys.argv[1] == "busy":
    threading.Thread(target=hold).start()
    held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    for use in (
        lambda: engine.submit(prompt, params),
        lambda: engine.call(lambda scheduler: None),
        engine.check_health,
    ):
        try:
            use()
        except EngineDeadError as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError("no error")
    engine.abort(stream.request_id)
    del stream
    engine.close()
    print("child", flush=True)
    sys.exit(0)
_, status = os.waitpid(child, 0)
go_on.set()
assert status == 0, status
print("parent", sum(len(output.outputs[0].token_ids) for output in stream) > 0)
"""


@pytest.mark.parametrize("lock", ["free", "busy"])
def test_an_engine_says_so_after_a_fork(lock: str) -> None:
    assert run(FORK, lock) == "child\nparent True\n"


INTERRUPT = """
import os, signal, threading
from fake_executor import FakeExecutor
from quire import LLM, Engine, SamplingParams

interrupted = threading.Event()

def interrupt(plan):
    if plan.step == 5:
        os.kill(os.getpid(), signal.SIGINT)
        interrupted.wait()

executor = FakeExecutor(skip_tokenizer_init=True, before_step=interrupt)
with Engine(executor=executor) as engine:
    llm = LLM(engine=engine)
    params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True, detokenize=False)
    # Once before: an interrupt within an import leaves a warning of Python's own.
    llm.generate([5], SamplingParams(max_tokens=1, detokenize=False))
    try:
        llm.generate([[1], [2], [3]], params)
    except KeyboardInterrupt:
        print("interrupted")
    interrupted.set()
    print(engine.call(lambda scheduler: (scheduler.check(), scheduler.num_requests)[1]))
    print("abort" in engine.metrics.finished)
    print(len(llm.generate([4], SamplingParams(max_tokens=3, detokenize=False))))
"""


def test_an_interrupt_in_generate_aborts_its_requests() -> None:
    assert run(INTERRUPT) == "interrupted\n0\nTrue\n1\n"
