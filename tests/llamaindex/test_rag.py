"""VllmEmbedding and VllmRerank on tiny encoders; query engines and evaluators on the bundled model."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from llama_index.core import Document, QueryBundle, Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.evaluation import FaithfulnessEvaluator, RelevancyEvaluator
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from llama_index.embeddings.quire import VllmEmbedding
from llama_index.llms.quire import Vllm
from llama_index.postprocessor.quire import VllmRerank
from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.errors import UnknownParamError
from served_engine import served_engine
from tiny_encoders import make_encoder

# What llama-index-core does by itself, where langchain-community is installed too.
pytestmark = pytest.mark.filterwarnings("ignore:.*langchain-community:DeprecationWarning")

FACTS = {
    "Where does Kofi live?": ("Kofi lives in Lisbon.", "Lisbon"),
    "What does Marta do for a living?": ("Marta Silva is a sailor.", "sailor"),
    "Who founded Acme?": ("Acme was founded by Ines Berg.", "Ines Berg"),
}
TEXTS = [text for text, _ in FACTS.values()]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An embedder and a cross-encoder, with random weights."""
    folder = tmp_path_factory.mktemp("encoders")
    embedder = make_encoder(folder / "embedder", prompts={"query": "q: ", "document": ""})
    return embedder, make_encoder(folder / "reranker", scores=True)


@pytest.fixture(scope="module")
def urls(folders: tuple[Path, Path]) -> Iterator[list[str]]:
    """Their endpoints."""
    embedder, reranker = (Engine(EngineConfig(model=str(folder))) for folder in folders)
    with (
        embedder,
        reranker,
        served_engine(embedder, "embedder") as one,
        served_engine(reranker, "reranker") as other,
    ):
        yield [one, other]


@pytest.fixture(params=["in process", "remote"])
async def make_embedding(
    request: pytest.FixtureRequest, folders: tuple[Path, Path], urls: list[str]
) -> AsyncIterator[Make]:
    local = request.param == "in process"
    where: dict[str, Any] = {"model": str(folders[0])} if local else {"base_url": urls[0]}
    made: list[VllmEmbedding] = []

    def make(**options: Any) -> VllmEmbedding:
        made.append(VllmEmbedding(**where, **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@pytest.fixture(params=["in process", "remote"])
async def make_rerank(
    request: pytest.FixtureRequest, folders: tuple[Path, Path], urls: list[str]
) -> AsyncIterator[Make]:
    local = request.param == "in process"
    where: dict[str, Any] = {"model": str(folders[1])} if local else {"base_url": urls[1]}
    made: list[VllmRerank] = []

    def make(**options: Any) -> VllmRerank:
        made.append(VllmRerank(**where, **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]


def is_near(one: list[float], other: list[float]) -> bool:
    return bool(np.allclose(one, other, atol=1e-5))


async def test_embeddings_of_texts_and_queries(make_embedding: Make) -> None:
    embedding = make_embedding()
    vectors = embedding.get_text_embedding_batch(TEXTS)
    assert [len(vector) for vector in vectors] == [32] * 3
    assert all(abs(float(np.linalg.norm(vector)) - 1) < 1e-5 for vector in vectors)
    for one, text in zip(vectors, TEXTS, strict=True):
        assert is_near(one, embedding.get_text_embedding(text))
        assert is_near(one, embedding.get_query_embedding(text))
        assert is_near(one, await embedding.aget_text_embedding(text))
        assert is_near(one, await embedding.aget_query_embedding(text))
    awaited = await embedding.aget_text_embedding_batch(TEXTS)
    assert all(is_near(one, other) for one, other in zip(vectors, awaited, strict=True))
    assert not is_near(vectors[0], vectors[1])


def test_instructions_prompts_and_dimensions(make_embedding: Make) -> None:
    plain = make_embedding()
    asked = make_embedding(query_instruction="q: ", text_instruction="t: ")
    assert is_near(asked.get_query_embedding("here"), plain.get_text_embedding("q: here"))
    assert is_near(asked.get_text_embedding("here"), plain.get_text_embedding("t: here"))
    named = make_embedding(query_prompt_name="query")
    assert not is_near(named.get_query_embedding("here"), plain.get_query_embedding("here"))
    assert is_near(named.get_text_embedding("here"), plain.get_text_embedding("here"))
    short = make_embedding(dimensions=8).get_text_embedding("here")
    longer = np.array(plain.get_text_embedding("here")[:8])
    assert is_near(short, list(longer / np.linalg.norm(longer)))


def test_all_texts_are_one_request(make_embedding: Make) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = make_embedding(callback_manager=CallbackManager([debug]))
    assert len(embedding.get_text_embedding_batch([f"text {i}" for i in range(300)])) == 300
    assert len(debug.get_event_pairs(CBEventType.EMBEDDING)) == 1


def test_long_texts_are_refused_or_cut(make_embedding: Make) -> None:
    long = "word " * 100
    with pytest.raises(openai.BadRequestError) as caught:
        make_embedding().get_text_embedding(long)
    assert caught.value.code == "context_length_exceeded"
    assert len(make_embedding(truncate_prompt_tokens=-1).get_text_embedding(long)) == 32


def test_a_cache_of_embeddings(make_embedding: Make) -> None:
    cache = SimpleKVStore()
    embedding = make_embedding(embeddings_cache=cache)
    first = embedding.get_text_embedding_batch(TEXTS)
    assert embedding.get_text_embedding_batch(TEXTS) == first
    assert set(cache.get_all(collection="embeddings")) == set(TEXTS)


def test_an_embedding_as_an_object(make_embedding: Make) -> None:
    embedding = make_embedding(api_key="a-secret", query_instruction="q: ")
    assert b"a-secret" not in pickle.dumps(embedding)
    assert "a-secret" not in embedding.to_json() + repr(embedding)
    other = pickle.loads(pickle.dumps(embedding))
    assert (
        other.to_dict() == embedding.to_dict() == type(other).from_dict(other.to_dict()).to_dict()
    )
    assert is_near(other.get_query_embedding("here"), embedding.get_query_embedding("here"))
    other.close()
    with pytest.raises(UnknownParamError, match="did you mean 'query_instruction'"):
        VllmEmbedding(query_instructions="q: ")


async def test_rerank(make_rerank: Make) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = make_rerank(top_n=2, callback_manager=CallbackManager([debug]))
    query = "Where does Kofi live?"
    found = rerank.postprocess_nodes(nodes(), query_str=query)
    everyone = make_rerank(top_n=9).postprocess_nodes(nodes(), query_bundle=QueryBundle(query))
    assert len(found) == 2
    assert len(everyone) == 3
    assert [one.score for one in everyone] == sorted((one.score for one in everyone), reverse=True)
    assert [one.text for one in found] == [one.text for one in everyone[:2]]
    awaited = await rerank.apostprocess_nodes(nodes(), query_str=query)
    assert [(one.text, one.score) for one in awaited] == [(one.text, one.score) for one in found]
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 2


def test_rerank_keeps_what_it_is_told_to(make_rerank: Make) -> None:
    before = nodes()
    kept = make_rerank(keep_retrieval_score=True).postprocess_nodes(before, query_str="Where?")
    assert all(one.node.metadata["retrieval_score"] == 0.5 for one in kept)
    assert all(one.score == 0.5 for one in before)
    assert make_rerank().postprocess_nodes([], query_str="Where?") == []
    with pytest.raises(ValueError, match="query_str"):
        make_rerank().postprocess_nodes(nodes())
    assert make_rerank().postprocess_nodes(
        [NodeWithScore(node=TextNode(text="word " * 200))], query_str="Where?"
    )


@pytest.fixture
def index(folders: tuple[Path, Path]) -> Iterator[VectorStoreIndex]:
    embedding = VllmEmbedding(str(folders[0]))
    yield VectorStoreIndex.from_documents(
        [Document(text=text) for text in TEXTS], embed_model=embedding
    )
    embedding.close()


async def test_a_query_engine(
    make: Callable[..., Vllm], make_rerank: Make, index: VectorStoreIndex
) -> None:
    """Random encoders find nothing in particular, so all the facts are given to the model."""
    options: dict[str, Any] = {
        "similarity_top_k": 3,
        "node_postprocessors": [make_rerank(top_n=3)],
        "llm": make(),
    }
    engine = index.as_query_engine(**options)
    for asked, (_, said) in FACTS.items():
        response = engine.query(asked)
        assert said in str(response)
        assert len(response.source_nodes) == 3
        assert said in str(await engine.aquery(asked))
    streaming = index.as_query_engine(streaming=True, **options)
    assert "Lisbon" in "".join(streaming.query("Where does Kofi live?").response_gen)


@pytest.mark.parametrize("mode", ["refine", "tree_summarize", "accumulate"])
def test_ways_to_answer(make: Callable[..., Vllm], index: VectorStoreIndex, mode: str) -> None:
    engine = index.as_query_engine(llm=make(), similarity_top_k=3, response_mode=mode)
    assert engine.query("Where does Kofi live?").source_nodes


async def test_a_chat_engine_over_an_index(
    make: Callable[..., Vllm], index: VectorStoreIndex
) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=900)
    engine = index.as_chat_engine("context", llm=make(), memory=memory, similarity_top_k=3)
    assert "Lisbon" in str(engine.chat("Where does Kofi live?"))
    assert str(await engine.achat("Who founded Acme?"))


async def test_evaluators(make: Callable[..., Vllm], index: VectorStoreIndex) -> None:
    llm = make()
    response = index.as_query_engine(llm=llm, similarity_top_k=3).query("Where does Kofi live?")
    for evaluator in (FaithfulnessEvaluator(llm=llm), RelevancyEvaluator(llm=llm)):
        result = await evaluator.aevaluate_response(
            query="Where does Kofi live?", response=response
        )
        assert result.passing in (True, False)
        assert result.feedback


async def test_settings_take_them(make: Callable[..., Vllm], make_embedding: Make) -> None:
    before = Settings._llm, Settings._embed_model
    try:
        Settings.llm, Settings.embed_model = make(), make_embedding()
        built = VectorStoreIndex([node.node for node in nodes()])
        engine = built.as_query_engine(similarity_top_k=3)
        answers = await asyncio.gather(*[engine.aquery(asked) for asked in FACTS])
        assert [
            said in str(one) for one, (_, said) in zip(answers, FACTS.values(), strict=True)
        ] == [True] * 3
    finally:
        Settings._llm, Settings._embed_model = before
