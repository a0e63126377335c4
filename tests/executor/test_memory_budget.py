"""`quire.memory_budget`: engines of one process within one stated budget."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors

import quire
from quire import LLM, MemoryBudget
from quire.errors import ConfigError, DeviceMemoryError, WeightsError
from tiny_encoders import make_encoder
from tiny_models import make_checkpoint

MIB = 1 << 20
OPTIONS: dict[str, Any] = {"max_model_len": 64, "max_num_seqs": 256}
# Of one token in the tiny models: keys and values, 3 layers, 2 heads of 8 numbers of 4 bytes.
TOKEN = 2 * 3 * 2 * 8 * 4
MOST = 256 * 64 * TOKEN  # that an engine can use


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_checkpoint(folder / "chat", "llama")
    make_encoder(folder / "embedder")
    make_encoder(folder / "ranker", scores=True)
    return folder


@pytest.fixture(autouse=True)
def no_budget() -> Iterator[None]:
    gc.collect()
    assert quire.memory_budget().engines == (), "an engine of another test is left"
    yield
    quire.memory_budget(None)


def size_of_weights(folder: Path) -> int:
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).nbytes for name in tuple(file.keys()))


def test_sizes() -> None:
    sizes = {
        "6 GiB": 6 << 30, "6G": 6 << 30, "6gb": 6 * 10**9, "1.5 MiB": 3 * MIB // 2, "800 MB": 800 * 10**6,
        "64K": 64 << 10, "1TiB": 1 << 40, "4096": 4096, 4096: 4096, "10 B": 10,
    }  # fmt: skip
    for written, size in sizes.items():
        assert quire.memory_budget(written).total == size
    assert quire.memory_budget().total == 10, "looking changes nothing"
    assert quire.memory_budget(None).total is None
    wrong: list[Any] = ["", "lots", "-1 GiB", 0, -5, 1.5, True, "6 XiB", "0"]
    for written in wrong:
        with pytest.raises(ConfigError, match="6 GiB"):
            quire.memory_budget(written)


def test_what_engines_hold_is_counted_without_a_budget(folder: Path) -> None:
    with LLM(str(folder / "chat"), kv_cache_memory_bytes=MIB, **OPTIONS):
        budget = quire.memory_budget()
        [held] = budget.engines
        assert held.weights == size_of_weights(folder / "chat")
        assert MIB - 16 * TOKEN < held.kv_cache <= MIB
        assert (budget.total, budget.left) == (None, None)
        assert "no budget" in str(budget)
    assert quire.memory_budget() == MemoryBudget(None, ())


def test_three_models_in_one_budget(folder: Path) -> None:
    quire.memory_budget("3 MiB")
    chat = quire.connect(folder / "chat", **OPTIONS)
    embedder = quire.connect(folder / "embedder")
    ranker = quire.connect(folder / "ranker")
    with chat, embedder, ranker:
        chat.load()
        [held] = quire.memory_budget().engines
        left = 3 * MIB - held.weights
        assert left // 2 - 16 * TOKEN < held.kv_cache <= left // 2, "half of what the weights leave"
        embedder.load()
        ranker.load()
        budget = quire.memory_budget()
        assert budget.left is not None
        assert budget.left >= 0
        assert [Path(one.model).name for one in budget.engines] == ["chat", "embedder", "ranker"]
        assert [one.kv_cache for one in budget.engines[1:]] == [0, 0]
        second = LLM(str(folder / "chat"), seed=1, **OPTIONS)
        shares = [one.kv_cache for one in quire.memory_budget().engines if one.kv_cache]
        assert shares[1] < shares[0], "half of what is left by now"
        create = chat.sync.completions.create
        assert create(model=chat.model, prompt="ab", max_tokens=4).choices[0].text
        assert len(embedder.sync.embeddings.create(model=embedder.model, input="a").data) == 1
        assert len(ranker.rerank("a", ["b", "c"])) == 2
        second.close()
        chat.close()
        assert [Path(one.model).name for one in quire.memory_budget().engines] == [
            "embedder",
            "ranker",
        ]
        again = LLM(str(folder / "chat"), **OPTIONS)
        assert quire.memory_budget().engines[-1].kv_cache > shares[1], "given back"
        again.close()
    assert quire.memory_budget().used == 0


def test_weights_that_do_not_fit(folder: Path) -> None:
    weights = size_of_weights(folder / "chat")
    quire.memory_budget(weights - 1)
    with pytest.raises(
        DeviceMemoryError, match=r"weights of .*chat would take .* left of a budget"
    ):
        LLM(str(folder / "chat"), **OPTIONS)
    assert quire.memory_budget().engines == ()
    quire.memory_budget("4 MiB")
    with LLM(str(folder / "chat"), **OPTIONS), pytest.raises(DeviceMemoryError) as caught:
        quire.memory_budget(quire.memory_budget().used)
        quire.connect(folder / "embedder").load()
    assert "chat holds" in str(caught.value)
    assert "Close an engine, raise quire.memory_budget" in str(caught.value)
    assert caught.value.param == "memory_budget"


def test_caches_that_do_not_fit(folder: Path) -> None:
    weights = size_of_weights(folder / "chat")
    least = 64 * TOKEN
    quire.memory_budget(weights + least - 1)
    with pytest.raises(DeviceMemoryError, match=r"the KV cache of .*chat would take"):
        LLM(str(folder / "chat"), **OPTIONS)
    with LLM(str(folder / "chat"), max_model_len=32) as llm:
        assert llm.generate("ab", use_tqdm=False)[0].outputs[0].token_ids
    quire.memory_budget(weights + least)
    with LLM(str(folder / "chat"), **OPTIONS):
        assert quire.memory_budget().left == 0, "all that is left, where half is too little"
    with pytest.raises(DeviceMemoryError, match=r"the KV cache of .*chat would take"):
        LLM(str(folder / "chat"), kv_cache_memory_bytes=2 * least, **OPTIONS)
    assert quire.memory_budget().engines == ()


def test_no_more_than_can_be_used(folder: Path) -> None:
    quire.memory_budget("1 GiB")
    with LLM(str(folder / "chat"), **OPTIONS):
        assert quire.memory_budget().engines[0].kv_cache == MOST


def test_stated_caches_are_kept_to(folder: Path) -> None:
    quire.memory_budget("2 MiB")
    with LLM(str(folder / "chat"), kv_cache_memory_bytes=100 * 16 * TOKEN, **OPTIONS):
        assert quire.memory_budget().engines[0].kv_cache == 100 * 16 * TOKEN


def test_a_smaller_budget_than_is_held(folder: Path) -> None:
    with LLM(str(folder / "chat"), **OPTIONS) as llm:
        budget = quire.memory_budget("1 KiB")
        assert budget.left is not None
        assert budget.left < 0
        assert llm.generate("ab", use_tqdm=False)[0].outputs[0].token_ids, "what is there goes on"
        with pytest.raises(DeviceMemoryError, match=r"0\.00 MiB are left"):
            quire.connect(folder / "embedder").load()


def test_a_load_that_fails_gives_back(folder: Path, tmp_path: Path) -> None:
    broken = make_checkpoint(tmp_path / "broken", "llama")
    os.truncate(broken / "model.safetensors", 100)
    with pytest.raises(WeightsError):
        LLM(str(broken), **OPTIONS)
    assert quire.memory_budget().engines == ()


def test_int8_weights_are_counted_as_they_are_held(folder: Path) -> None:
    with LLM(str(folder / "chat"), quantization="int8", **OPTIONS) as llm:
        assert quire.memory_budget().engines[0].weights < size_of_weights(folder / "chat")
        assert llm.generate("ab", use_tqdm=False)[0].outputs[0].token_ids


def test_many_at_once_stay_within(folder: Path) -> None:
    """Whatever the order in which they come, the sum is never over the budget."""
    quire.memory_budget("1 MiB")
    made: list[LLM] = []
    refused: list[DeviceMemoryError] = []

    def make(seed: int) -> None:
        try:
            made.append(LLM(str(folder / "chat"), seed=seed, **OPTIONS))
        except DeviceMemoryError as error:
            refused.append(error)

    threads = [threading.Thread(target=make, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    budget = quire.memory_budget()
    assert budget.left is not None
    assert budget.left >= 0
    assert len(budget.engines) == len(made) == 8 - len(refused)
    assert made
    for llm in made:
        llm.close()
