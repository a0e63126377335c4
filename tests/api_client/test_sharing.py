"""One engine for all who ask for the same: connections, clients and `LLM`, however they write it."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import quire
from quire import LLM, AsyncLLM, Engine
from quire.engine import sharing
from quire.errors import EngineClosedError, ModelNotFoundError
from tiny_models import make_checkpoint

OPTIONS: dict[str, Any] = {"max_model_len": 64, "num_gpu_blocks_override": 64}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Every engine that is made."""
    engines: list[Engine] = []

    class Counted(Engine):
        def __init__(self, config: quire.EngineConfig) -> None:
            super().__init__(config)
            engines.append(self)

    monkeypatch.setattr(sharing, "Engine", Counted)
    return engines


def is_closed(engine: Engine) -> bool:
    try:
        engine.check_health()
    except EngineClosedError:
        return True
    return False


def ask(connection: quire.Connection) -> str:
    create = connection.sync.completions.create
    return create(model=connection.model, prompt="ab", max_tokens=3).choices[0].text


def test_the_same_written_differently(model: Path, loaded: list[Engine]) -> None:
    away = os.path.relpath(model)
    writings: list[dict[str, Any]] = [
        {"model": str(model)},
        {"model": model},
        {"model": away},
        {"model": f"{model}/"},
        {"model": model, "dtype": "auto", "seed": 0, "enforce_eager": False},
        {"model": model, "tokenizer": model},
        {"model": model, "tokenizer": str(model), "tokenizer_revision": None},
    ]
    made = [quire.connect(**writing, **OPTIONS).load() for writing in writings]
    assert len(loaded) == 1
    for connection in made:
        assert ask(connection)
    for number in ("float32", torch.float32, "float"):
        made.append(quire.connect(model, dtype=number, **OPTIONS).load())
    assert len(loaded) == 2, "whose dtype is stated is another one"
    for connection in made:
        connection.close()
    assert all(is_closed(engine) for engine in loaded)


def test_every_face_shares(model: Path, loaded: list[Engine]) -> None:
    llm = LLM(str(model), **OPTIONS)
    face = AsyncLLM(str(model), **OPTIONS)
    connection = quire.connect(model, **OPTIONS)
    client = quire.openai_client(model, **OPTIONS)
    assert ask(connection)
    assert client.models.list().data[0].id == str(model)
    assert len(loaded) == 1
    llm.close()
    connection.close()
    face.close()
    assert not is_closed(loaded[0]), "the client is left"
    assert client.completions.create(model=str(model), prompt="ab", max_tokens=2)
    client.close()
    assert is_closed(loaded[0])


def test_an_engine_that_is_given(model: Path, loaded: list[Engine]) -> None:
    with LLM(str(model), **OPTIONS) as llm, AsyncLLMs(model) as face:
        for given in (llm, face, llm.engine):
            with quire.connect(engine=given) as connection:
                assert connection.model == str(model)
                assert ask(connection)
            with quire.openai_client(given) as client:
                assert client.models.list().data[0].id == str(model)
        assert not is_closed(llm.engine)
    assert len(loaded) == 1


class AsyncLLMs:
    """An `AsyncLLM`, closed without a loop."""

    def __init__(self, model: Path) -> None:
        self._face = AsyncLLM(str(model), **OPTIONS)

    def __enter__(self) -> AsyncLLM:
        return self._face

    def __exit__(self, *exception: object) -> None:
        self._face.close()


def test_nothing_is_loaded_before_first_use(model: Path, loaded: list[Engine]) -> None:
    connection = quire.connect(model, **OPTIONS)
    assert connection.model == str(model)
    assert connection.is_local
    assert connection.sync.chat.completions
    assert connection.asynchronous.embeddings
    before = threading.active_count()
    connection.close()
    assert not loaded
    assert threading.active_count() == before
    with pytest.raises(EngineClosedError, match="closed"):
        ask(connection)


def test_first_use_from_many_threads_loads_once(model: Path, loaded: list[Engine]) -> None:
    connections = [quire.connect(model, **OPTIONS) for _ in range(3)]
    texts: list[str] = []
    barrier = threading.Barrier(12)

    def use(connection: quire.Connection) -> None:
        barrier.wait()
        texts.append(ask(connection))

    threads = [threading.Thread(target=use, args=(connections[n % 3],)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert len(texts) == 12
    assert len(set(texts)) >= 1
    for connection in connections:
        connection.close()
    assert is_closed(loaded[0])


def test_what_nobody_holds_is_freed(model: Path, loaded: list[Engine]) -> None:
    """A client, and even a stream, holds the engine; without them it is closed, and its thread ends."""
    names = {thread.name for thread in threading.enumerate()}
    client = quire.connect(model, **OPTIONS).sync
    create = client.completions.create
    stream = create(model=str(model), prompt="ab", max_tokens=8, temperature=0, stream=True)
    whole = create(model=str(model), prompt="ab", max_tokens=8, temperature=0)
    del client, create
    gc.collect()
    assert not is_closed(loaded[0])
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    workers = [one for one in threading.enumerate() if one.name == "quire-client"]
    del stream
    gc.collect()
    assert is_closed(loaded[0])
    for worker in workers:
        worker.join(20)
    assert "quire-client" not in {t.name for t in threading.enumerate()} - names


def test_a_model_that_is_not_there() -> None:
    connection = quire.connect("/nowhere/at/all")
    for _ in range(2):
        with pytest.raises(ModelNotFoundError, match="no folder"):
            connection.sync.models.list()
        with pytest.raises(ModelNotFoundError, match="no folder"):
            quire.openai_client("/nowhere/at/all").models.list()


def test_templates_without_tools(model: Path) -> None:
    with quire.connect(model, chat_template="{{ messages[0].content }}", **OPTIONS) as connection:
        assert not connection.supports_tools()
    with quire.connect() as bundled:
        assert bundled.supports_tools()


def test_langchain_and_llama_index_share(model: Path, loaded: list[Engine]) -> None:
    """Three classes of two frameworks, whose defaults are written out differently, and an `LLM`."""
    langchain_quire = pytest.importorskip("langchain_quire")
    llama_index = pytest.importorskip("llama_index.llms.quire")
    chat = langchain_quire.ChatVLLM(model=str(model), max_tokens=2)
    text = langchain_quire.VLLM(model=str(model), max_new_tokens=2, vllm_kwargs={"seed": 0})
    other = llama_index.Vllm(model=str(model), max_new_tokens=2)
    with LLM(model=str(model)) as llm:
        assert chat.invoke("ab").response_metadata
        assert isinstance(text.invoke("ab"), str)
        assert other.complete("ab").raw
        assert loaded == [llm.engine]
    del chat, text, other
    gc.collect()
    assert is_closed(loaded[0])
