"""`LLM.score` and `LLM.rerank`: cross-encoders beside transformers, and cosines of embeddings."""

from __future__ import annotations

import json

import pytest
import torch

from pooled_reference import Reference
from quire import LLM, AsyncLLM, PoolingParams
from quire.errors import (
    InvalidParamsError,
    InvalidPromptError,
    PromptTooLongError,
    UnsupportedTaskError,
)
from tiny_encoders import CLS, ENCODERS, SEP, make_encoder

QUERY = "which one?"
DOCUMENTS = ["the first", "a second one that is longer", "é", "the first", "last of all"]
RAW = PoolingParams(use_activation=False)


def scores(outputs):
    return [one.outputs.score for one in outputs]


def sigmoid(values):
    return torch.tensor(values).sigmoid().tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("reranker") / "bert", scores=True)


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(str(folder)) as made:
        yield made


@pytest.fixture(scope="module")
def logits(folder):
    reference = Reference(folder, scores=True)
    return [reference.logit(QUERY, document) for document in DOCUMENTS]


@pytest.mark.parametrize("model_type", ENCODERS)
def test_every_family(model_type, tmp_path):
    folder = make_encoder(tmp_path, model_type, scores=True)
    reference = Reference(folder, scores=True)
    expected = [reference.logit(QUERY, document) for document in DOCUMENTS]
    with LLM(str(folder)) as llm:
        found = scores(llm.score(QUERY, DOCUMENTS, pooling_params=RAW))
    assert found == pytest.approx(expected, abs=1e-4)


def test_mean_of_modernbert(tmp_path):
    folder = make_encoder(tmp_path, "modernbert", scores=True, classifier_pooling="mean")
    reference = Reference(folder, scores=True)
    with LLM(str(folder)) as llm:
        [one] = llm.score(QUERY, DOCUMENTS[1], pooling_params=RAW)
    assert one.outputs.score == pytest.approx(reference.logit(QUERY, DOCUMENTS[1]), abs=1e-4)


def test_forms(llm, logits):
    expected = sigmoid(logits)
    assert scores(llm.score(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-5)
    pairs = llm.score([QUERY] * len(DOCUMENTS), DOCUMENTS)
    assert scores(pairs) == pytest.approx(expected, abs=1e-5)
    [one] = llm.score(QUERY, DOCUMENTS[0])
    assert one.outputs.score == pytest.approx(expected[0], abs=1e-5)
    assert one.prompt_token_ids[0] == CLS and one.prompt_token_ids.count(SEP) == 2


def test_the_order_within_a_pair_counts(llm):
    there, back = scores(llm.score(["a query", "a document"], ["a document", "a query"]))
    assert there != pytest.approx(back, abs=1e-6)


@pytest.mark.parametrize("where", ["config.json", "config_sentence_transformers.json", "old"])
def test_activation_of_the_files(where, folder, logits, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    name = "torch.nn.modules.linear.Identity"
    if where == "config_sentence_transformers.json":
        (tmp_path / where).write_text(json.dumps({"activation_fn": name}))
    else:
        config = json.loads((tmp_path / "config.json").read_text())
        if where == "old":
            config["sbert_ce_default_activation_function"] = name
        else:
            config["sentence_transformers"] = {"activation_fn": name}
        (tmp_path / "config.json").write_text(json.dumps(config))
    with LLM(str(tmp_path)) as llm:
        assert scores(llm.score(QUERY, DOCUMENTS)) == pytest.approx(logits, abs=1e-4)


def test_rerank(llm, logits):
    ranked = llm.rerank(QUERY, DOCUMENTS)
    order = sorted(range(len(DOCUMENTS)), key=lambda place: -logits[place])
    assert [one.index for one in ranked] == order
    assert [one.document for one in ranked] == [DOCUMENTS[place] for place in order]
    found = [one.relevance_score for one in ranked]
    assert found == pytest.approx(sigmoid([logits[place] for place in order]), abs=1e-5)
    assert llm.rerank(QUERY, DOCUMENTS, top_n=2) == ranked[:2]
    assert len(llm.rerank(QUERY, DOCUMENTS, top_n=99)) == len(DOCUMENTS)
    with pytest.raises(InvalidParamsError, match="top_n"):
        llm.rerank(QUERY, DOCUMENTS, top_n=0)


def test_equal_scores_keep_their_order(llm):
    ranked = llm.rerank(QUERY, ["same", "same", "same"])
    assert [one.index for one in ranked] == [0, 1, 2]


def test_long_pairs(llm):
    query, document = "q" * 30, "d" * 300
    with pytest.raises(PromptTooLongError, match="data_2 has 333 tokens"):
        llm.score(query, document)
    [one] = llm.score(query, document, pooling_params=PoolingParams(truncate_prompt_tokens=-1))
    longest = llm.engine.max_model_len
    assert len(one.prompt_token_ids) == longest  # the longer text was cut, the query is whole
    assert one.prompt_token_ids[31] == SEP


@pytest.mark.parametrize(
    "queries, documents, error, message",
    [
        (["a", "b"], ["c", "d", "e"], InvalidParamsError, "one query for all"),
        ("a", [], InvalidPromptError, "data_2"),
        ("a", ["b", ""], InvalidPromptError, r"data_2\[1\]"),
        ("", "b", InvalidPromptError, "data_1"),
        ("a", [[1, 2]], InvalidPromptError, "data_2"),
        (None, "b", InvalidPromptError, "data_1"),
    ],
)
def test_bad_texts(llm, queries, documents, error, message):
    with pytest.raises(error, match=message):
        llm.score(queries, documents)


def test_a_reranker_does_nothing_else(llm):
    with pytest.raises(UnsupportedTaskError, match="makes no embeddings: it scores pairs of texts"):
        llm.embed("text")
    with pytest.raises(UnsupportedTaskError, match="generates no text"):
        llm.generate("text")
    with pytest.raises(InvalidParamsError, match="dimensions"):
        llm.score("a", "b", pooling_params=PoolingParams(dimensions=3))


async def test_async(folder, llm):
    async with AsyncLLM(str(folder)) as face:
        found = await face.score(QUERY, DOCUMENTS)
        ranked = await face.rerank(QUERY, DOCUMENTS, top_n=3)
    expected = llm.rerank(QUERY, DOCUMENTS, top_n=3)
    assert scores(found) == pytest.approx(scores(llm.score(QUERY, DOCUMENTS)), abs=1e-6)
    assert [one.index for one in ranked] == [one.index for one in expected]


def test_by_embeddings(tmp_path):
    """Cosines, with the model's prompts in front of queries and documents."""
    prompts = {"query": "find: ", "document": "read: "}
    folder = make_encoder(tmp_path, prompts=prompts, normalize=False)
    reference = Reference(folder)
    query = reference.embedding("find: " + QUERY, "mean")
    expected = [
        float(query @ reference.embedding("read: " + document, "mean")) for document in DOCUMENTS
    ]
    with LLM(str(folder)) as llm:
        assert scores(llm.score(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-5)
        pairs = llm.score([QUERY] * len(DOCUMENTS), DOCUMENTS)
        assert scores(pairs) == pytest.approx(expected, abs=1e-5)
        best = llm.rerank(QUERY, DOCUMENTS, top_n=1)[0]
        assert best.index == max(range(len(expected)), key=expected.__getitem__)
