"""Embeddings by decoders: by the last token or by all, across chunks, preemption and the prefix cache."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from pooled_reference import Reference
from quire import LLM, SamplingParams
from quire.errors import UnsupportedTaskError
from tiny_encoders import POOLING_FLAGS, save_modules
from tiny_models import make_checkpoint, make_model, save_byte_tokenizer

ATOL = 1e-4


def close(found, expected):
    torch.testing.assert_close(torch.tensor(found), expected, atol=ATOL, rtol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("decoder") / "qwen3", "qwen3")


@pytest.fixture(scope="module")
def reference(folder):
    return Reference(folder)


def test_a_generator_embeds_by_its_last_token(folder, reference):
    with LLM(str(folder)) as llm:
        assert llm.engine.facts.tasks == {"generate", "embed"}
        close(llm.embed("some text")[0].outputs.embedding, reference.embedding("some text", "last"))
        assert llm.generate("some text", SamplingParams(max_tokens=3))[0].outputs[0].token_ids


def test_an_embedder_by_its_files(folder, reference, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_modules(tmp_path, "last", normalize=True)
    with LLM(str(tmp_path)) as llm:
        close(llm.embed("text")[0].outputs.embedding, reference.embedding("text", "last"))
        with pytest.raises(UnsupportedTaskError, match="generates no text: it makes embeddings"):
            llm.generate("text")
    with LLM(str(tmp_path), runner="generate") as llm:
        assert llm.generate("text", SamplingParams(max_tokens=2))[0].finished
    with LLM(str(folder), runner="pooling") as llm, pytest.raises(UnsupportedTaskError):
        llm.generate("text")


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_checkpoint_without_a_head(model_type, tmp_path):
    make_model(model_type).base_model.save_pretrained(tmp_path)
    save_byte_tokenizer(tmp_path)
    reference = Reference(tmp_path)
    with LLM(str(tmp_path)) as llm:
        assert llm.engine.facts.tasks == {"embed"}
        close(llm.embed("some text")[0].outputs.embedding, reference.embedding("some text", "last"))


@pytest.mark.parametrize("method", POOLING_FLAGS.values())
def test_every_pooling_in_chunks(method, folder, reference, tmp_path):
    """Prompts in chunks, some with a beginning that the cache holds, in too few blocks for all."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_modules(tmp_path, method, normalize=True)
    rng = random.Random(7)
    stem = [rng.randrange(256) for _ in range(40)]
    prompts = [
        [
            *(stem if rng.random() < 0.5 else []),
            *(rng.randrange(256) for _ in range(rng.randint(1, 60))),
        ]
        for _ in range(40)
    ]
    options = {"num_gpu_blocks_override": 26, "block_size": 8, "max_model_len": 200}
    with LLM(str(tmp_path), max_num_batched_tokens=32, max_num_seqs=12, **options) as llm:
        found = llm.embed(prompts)
        again = llm.embed(prompts)
        llm.engine.call(lambda scheduler: scheduler.check())
    for ids, one, other in zip(prompts, found, again, strict=True):
        expected = reference.embedding(ids, method)
        close(one.outputs.embedding, expected)
        close(other.outputs.embedding, expected)


def test_beside_generation(folder, reference):
    """Vectors and texts of one engine, from many threads at once, in a cache that is too small for all."""
    rng = random.Random(3)
    options = {"num_gpu_blocks_override": 30, "block_size": 8, "max_model_len": 160}
    texts = ["the same beginning " + "x" * rng.randint(1, 60) for _ in range(24)]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    wrong = []
    with LLM(str(folder), max_num_batched_tokens=48, max_num_seqs=10, **options) as llm:
        expected = [one.outputs[0].token_ids for one in llm.generate(texts, params)]

        def embed(part):
            for text, one in zip(part, llm.embed(part), strict=True):
                vector = torch.tensor(one.outputs.embedding)
                if not torch.allclose(vector, reference.embedding(text, "last"), atol=ATOL):
                    wrong.append(text)

        def generate(part):
            for one in llm.generate(part, params):
                if one.outputs[0].token_ids != expected[texts.index(one.prompt)]:
                    wrong.append(one.prompt)

        threads = [
            threading.Thread(target=work, args=(texts[start::4],))
            for start in range(4)
            for work in (embed, generate)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        llm.engine.call(lambda scheduler: scheduler.check())
    assert wrong == []


def test_the_prefix_cache_serves_last_tokens(folder):
    text = "a beginning that is long enough for several blocks " * 2
    with LLM(str(folder), block_size=8) as llm:
        first = llm.embed(text + "one")
        again = llm.embed(text + "two")
        counters = {one.name: one.value for one in llm.get_metrics() if hasattr(one, "value")}
        assert counters["vllm:prefix_cache_hits"] >= 96
        assert counters["vllm:prompt_tokens_cached"] >= 96
        assert counters["vllm:prompt_tokens"] == sum(
            len(one.prompt_token_ids) for one in (*first, *again)
        )
