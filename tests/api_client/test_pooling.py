"""Embeddings, rerank and score, remote and in process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import quire
from client_answers import refusal, shape
from quire import Engine, EngineConfig
from quire.errors import RequestError
from served_engine import served_engine
from tiny_encoders import make_encoder

TEXTS = ["a cat", "a dog sleeps", "trains"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = make_encoder(tmp_path_factory.mktemp("models") / "embedder")
    with Engine(EngineConfig(model=str(folder))) as engine:
        yield engine


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = make_encoder(tmp_path_factory.mktemp("models") / "ranker", scores=True)
    with Engine(EngineConfig(model=str(folder))) as engine:
        yield engine


def both_ways(engine: Engine) -> Iterator[quire.Connection]:
    name = Path(str(engine.config.model)).name
    with served_engine(engine, name) as url:
        with quire.connect(name, base_url=url) as remote:
            yield remote
        with quire.connect(name, engine=engine) as local:
            yield local
        with quire.openai_client(engine) as client:
            assert client.models.retrieve(name).id == name


def test_embeddings(embedder: Engine) -> None:
    answers: list[Any] = []
    refusals: list[Any] = []
    for connection in both_ways(embedder):
        create = connection.sync.embeddings.create
        as_numbers = create(model=connection.model, input=TEXTS, encoding_format="float")
        by_default = create(model=connection.model, input=TEXTS)
        for one, other in zip(by_default.data, as_numbers.data, strict=True):
            assert one.embedding == pytest.approx(other.embedding)
        short = create(model=connection.model, input=TEXTS[0], dimensions=8)
        with pytest.raises(openai.BadRequestError) as caught:
            create(model=connection.model, input=[])
        refusals.append(refusal(caught.value))

        async def embed(connection: quire.Connection = connection) -> Any:
            async with connection.asynchronous as client:
                return await client.embeddings.create(model=connection.model, input=TEXTS)

        answers.append(shape([as_numbers, short, asyncio.run(embed())]))
    assert answers[0] == answers[1]
    assert refusals[0] == refusals[1]


def test_rerank_and_score(ranker: Engine) -> None:
    answers: list[Any] = []
    for connection in both_ways(ranker):
        ranked = connection.rerank("a pet", TEXTS)
        scores = connection.score("a pet", TEXTS)
        assert [scores[one.index] for one in ranked] == [one.relevance_score for one in ranked]
        assert sorted(scores, reverse=True) == [one.relevance_score for one in ranked]
        assert [one.document for one in ranked] == [TEXTS[one.index] for one in ranked]
        assert connection.rerank("a pet", TEXTS, top_n=1) == ranked[:1]
        assert connection.score(TEXTS, TEXTS, truncate_prompt_tokens=4)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            connection.rerank("a pet", TEXTS, temperature=1)

        async def ask(connection: quire.Connection = connection) -> Any:
            async with connection.asynchronous:
                return (
                    await connection.arerank("a pet", TEXTS),
                    await connection.ascore("a pet", TEXTS),
                )

        assert asyncio.run(ask()) == (ranked, scores)
        answers.append((ranked, scores))
    assert answers[0] == answers[1]


def test_a_model_without_embeddings_says_so(ranker: Engine) -> None:
    refusals = []
    for connection in both_ways(ranker):
        with pytest.raises(openai.APIStatusError) as caught:
            connection.sync.embeddings.create(model=connection.model, input="x")
        refusals.append(refusal(caught.value))
    assert refusals[0] == refusals[1]


def test_one_text_is_no_list_of_documents() -> None:
    with pytest.raises(RequestError, match="documents must be a list"):
        quire.connect().rerank("a", "abc")
