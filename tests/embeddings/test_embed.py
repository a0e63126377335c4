"""`LLM.embed` on tiny random encoders, beside transformers with the pooling written out."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from pooled_reference import Reference
from quire import LLM, AsyncLLM, PoolingParams
from quire.errors import (
    ConfigError,
    InvalidParamsError,
    InvalidPromptError,
    PromptTooLongError,
    RequestFailedError,
    UnsupportedModelError,
    UnsupportedTaskError,
)
from quire.tokenizer import Tokenizer
from tiny_encoders import CLS, ENCODERS, POOLING_FLAGS, SEP, SIZE, make_encoder
from tiny_tokenizers import KINDS

ATOL = 1e-5


def close(found, expected, atol=ATOL):
    torch.testing.assert_close(torch.tensor(found), expected, atol=atol, rtol=0)


def vectors(outputs):
    return [one.outputs.embedding for one in outputs]


def random_texts(count, longest=100, seed=0):
    rng = random.Random(seed)
    letters = "abc def ghi.é日"
    return ["".join(rng.choices(letters, k=rng.randint(1, longest)))[:40] for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    prompts = {"query": "find: ", "document": "read: "}
    return make_encoder(
        tmp_path_factory.mktemp("embedder") / "bert", max_seq_length=100, prompts=prompts
    )


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(str(folder)) as made:
        yield made


@pytest.fixture(scope="module")
def reference(folder):
    return Reference(folder)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_every_family(model_type, tmp_path):
    folder = make_encoder(tmp_path, model_type)
    reference, texts = Reference(folder), random_texts(9)
    with LLM(str(folder)) as llm:
        for text, found in zip(texts, vectors(llm.embed(texts)), strict=True):
            close(found, reference.embedding(text, "mean"))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("method", POOLING_FLAGS.values())
def test_every_pooling(method, normalize, tmp_path):
    folder = make_encoder(tmp_path, pooling=method, normalize=normalize)
    reference, texts = Reference(folder), random_texts(5)
    with LLM(str(folder)) as llm:
        for text, found in zip(texts, vectors(llm.embed(texts)), strict=True):
            close(found, reference.embedding(text, method, normalize=normalize))


def test_dense_layer(tmp_path):
    folder = make_encoder(tmp_path, dense=12, normalize=False)
    reference = Reference(folder)
    layer = load_file(folder / "2_Dense/model.safetensors")
    with LLM(str(folder)) as llm:
        assert llm.engine.facts.pooling.size == 12
        [one] = llm.embed("some text")
    vector = reference.embedding("some text", "mean", normalize=False)
    close(one.outputs.embedding, (layer["linear.weight"] @ vector + layer["linear.bias"]).tanh())


def test_without_sentence_transformers_files(tmp_path):
    """As vLLM: the first token's state, of unit length; options say otherwise."""
    folder = make_encoder(tmp_path, pooling=None)
    reference = Reference(folder)
    with LLM(str(folder)) as llm:
        close(llm.embed("text")[0].outputs.embedding, reference.embedding("text", "cls"))
        assert llm.engine.max_model_len == 130
    options = {"pooling_type": "mean", "use_activation": False}
    with LLM(str(folder), pooler_config=options) as llm:
        expected = reference.embedding("text", "mean", normalize=False)
        close(llm.embed("text")[0].outputs.embedding, expected)


def test_outputs(llm, reference):
    [one] = llm.embed("hello")
    assert one.prompt_token_ids == reference.ids("hello")
    assert one.prompt_token_ids[0] == CLS and one.prompt_token_ids[-1] == SEP
    assert isinstance(one.outputs.embedding, list) and one.outputs.hidden_size == SIZE
    assert one.finished and one.request_id


def test_forms_of_prompts(llm, reference):
    ids = reference.ids("hello")
    prompts = ["hello", ids, {"prompt": "hello"}, {"prompt_token_ids": ids}]
    first, *others = vectors(llm.embed(prompts))
    assert all(other == first for other in others)
    assert vectors(llm.embed(ids)) == [first]
    assert llm.embed([]) == []


def test_a_batch_changes_nothing(folder, reference):
    """Every text gets what it gets alone, whoever is beside it and however small a step is."""
    texts = random_texts(400, seed=1)
    with LLM(str(folder), max_num_batched_tokens=120, max_num_seqs=7) as llm:
        found = vectors(llm.embed(texts))
    for text, vector in random.Random(2).sample(list(zip(texts, found, strict=True)), 25):
        close(vector, reference.embedding(text, "mean"))


def test_prompts_in_front(llm, reference):
    def expected(text):
        return reference.embedding(text, "mean")

    close(llm.embed("x", prompt_name="query")[0].outputs.embedding, expected("find: x"))
    close(llm.embed("x", prompt="do: ")[0].outputs.embedding, expected("do: x"))
    close(llm.embed("x")[0].outputs.embedding, expected("x"))
    with pytest.raises(InvalidParamsError, match="did you mean 'query'"):
        llm.embed("x", prompt_name="querry")


def test_prompt_by_default_and_not_counted(tmp_path):
    folder = make_encoder(tmp_path, prompts={"task": "do: "}, default_prompt_name="task")
    settings = json.loads((folder / "1_Pooling/config.json").read_text())
    (folder / "1_Pooling/config.json").write_text(json.dumps({**settings, "include_prompt": False}))
    reference = Reference(folder)
    skip = len(reference.ids("do: ")) - 1  # [CLS] and the prompt; [SEP] stands behind the text
    with LLM(str(folder)) as llm:
        by_name, ids = llm.embed(["x", reference.ids("x")])
    close(by_name.outputs.embedding, reference.embedding("do: x", "mean", skip=skip))
    close(ids.outputs.embedding, reference.embedding("x", "mean"))


def test_dimensions(llm, reference):
    whole = reference.embedding("text", "mean", normalize=False)
    [cut] = llm.embed("text", pooling_params=PoolingParams(dimensions=5))
    close(cut.outputs.embedding, whole[:5] / whole[:5].norm())
    raw = PoolingParams(dimensions=5, use_activation=False)
    close(llm.embed("text", pooling_params=raw)[0].outputs.embedding, whole[:5])
    with pytest.raises(InvalidParamsError, match="33 is more than the 32"):
        llm.embed("text", pooling_params=PoolingParams(dimensions=33))


def test_long_texts(llm, reference):
    assert llm.engine.max_model_len == 100
    text = "abcdefghij" * 20
    with pytest.raises(
        PromptTooLongError, match=r"prompt\[1\] has 202 tokens, and the model takes 100"
    ):
        llm.embed(["short", text])
    for asked, length in ((-1, 100), (1000, 100), (9, 9)):
        [one] = llm.embed(text, pooling_params=PoolingParams(truncate_prompt_tokens=asked))
        assert one.prompt_token_ids == [*reference.ids(text)[: length - 1], SEP]
    [ids] = llm.embed([[7] * 300], pooling_params=PoolingParams(truncate_prompt_tokens=-1))
    assert ids.prompt_token_ids == [7] * 100
    [exact] = llm.embed([[7] * 100])
    assert len(exact.prompt_token_ids) == 100
    with pytest.raises(InvalidPromptError, match="no room for text"):
        llm.embed("text", pooling_params=PoolingParams(truncate_prompt_tokens=2))


@pytest.mark.parametrize(
    "prompts, message",
    [
        ("", "prompt: the text is empty"),
        (["fine", ""], r"prompt\[1\]: the text is empty"),
        ([[]], "non-empty list of token ids"),
        ([[1, 999]], "token id 999"),
        ([[1, True]], "must be integers"),
        ([{"text": "x"}], "no field 'text'"),
        (7, "got int"),
        (["half \ud800 pair"], "half a surrogate pair"),
    ],
)
def test_bad_prompts(llm, prompts, message):
    with pytest.raises(InvalidPromptError, match=message):
        llm.embed(prompts)
    assert len(llm.embed("still there")) == 1


@pytest.mark.parametrize("values", [{"dimensions": 0}, {"dimensions": True}, {"dimensions": 1.5},
                                    {"truncate_prompt_tokens": 0}, {"truncate_prompt_tokens": -2},
                                    {"use_activation": "yes"}])  # fmt: skip
def test_bad_params(values):
    with pytest.raises(InvalidParamsError, match=next(iter(values))):
        PoolingParams(**values)


def test_an_embedder_does_not_generate(llm):
    for ask in (
        lambda: llm.generate("hello"),
        lambda: llm.chat([{"role": "user", "content": "hello"}]),
        lambda: llm.stream("hello"),
    ):
        with pytest.raises(UnsupportedTaskError, match="generates no text: it makes embeddings"):
            ask()
    assert len(llm.embed("still there")) == 1


def test_a_text_that_fails_fails_alone(folder, tmp_path):
    """A row of the vocabulary is NaN: texts with that byte have no vector, and nobody else suffers."""
    for file in folder.rglob("*"):
        target = tmp_path / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            target.write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][3] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with LLM(str(tmp_path)) as llm:
        with pytest.raises(RequestFailedError, match=r"text 1: .*NaN"):
            llm.embed([[5, 6], [5, 3], [7]])
        assert len(llm.embed([[5, 6], [7]])) == 2
        counts = {one.name: one.value for one in llm.get_metrics() if hasattr(one, "value")}
        assert counts["vllm:num_requests_running"] == 0


def test_options_that_do_not_fit(folder):
    with pytest.raises(ConfigError, match="less than the 100 tokens of the longest text"):
        LLM(str(folder), max_num_batched_tokens=64)
    with pytest.raises(ConfigError, match="has no head that generates"):
        LLM(str(folder), runner="generate")
    with pytest.raises(ConfigError, match="pooling_type must be one of"):
        LLM(str(folder), pooler_config={"pooling_type": "sum"})
    with pytest.raises(ConfigError, match="did you mean 'pooling_type'"):
        LLM(str(folder), pooler_config={"poolingtype": "MEAN"})
    with LLM(str(folder), task="embed", max_model_len=130) as llm:  # what the positions allow
        assert llm.engine.max_model_len == 130


def test_a_module_that_quire_does_not_have(tmp_path):
    folder = make_encoder(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.WeightedLayerPooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModelError, match="WeightedLayerPooling"):
        LLM(str(folder))


async def test_async(folder, llm):
    texts = random_texts(40, seed=4)
    expected = vectors(llm.embed(texts))
    async with AsyncLLM(str(folder)) as face:
        assert face.engine is llm.engine
        whole = vectors(await face.embed(texts))
        each = await asyncio.gather(*(face.embed(text) for text in texts))
        with pytest.raises(UnsupportedTaskError):
            async for _ in face.generate("hello"):
                pass
    torch.testing.assert_close(whole, expected, atol=ATOL, rtol=0)
    torch.testing.assert_close([vectors(one)[0] for one in each], expected, atol=ATOL, rtol=0)


def test_quantized(folder, reference):
    with LLM(str(folder), quantization="int8") as llm:
        [one] = llm.embed("some text")
    expected = reference.embedding("some text", "mean")
    assert torch.dot(torch.tensor(one.outputs.embedding), expected) > 0.99


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_other_dtypes(model_type, dtype, tmp_path):
    folder = make_encoder(tmp_path, model_type)
    expected = Reference(folder).embedding("some text", "mean")
    with LLM(str(folder), dtype=dtype) as llm:
        [one] = llm.embed("some text")
    assert torch.dot(torch.tensor(one.outputs.embedding), expected) > 0.9999


def test_random_weights(folder):
    with LLM(str(folder), load_format="dummy") as llm:
        [one] = llm.embed("some text")
    assert torch.tensor(one.outputs.embedding).norm() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["byte_level", "slow"])
def test_texts_and_pairs_as_transformers_writes_them(kind):
    """Tokenizers in Rust and in Python, whole and cut."""
    hf = KINDS[kind](None)
    tokenizer = Tokenizer(hf)
    texts = ["The capital of France is Paris.", "a", "日本の首都"]
    for cut in (None, 6):
        options = {"truncation": cut is not None, "max_length": cut}
        whole = [list(hf(text, **options)["input_ids"]) for text in texts]
        assert [ids for ids, _ in tokenizer.encode_texts(texts, cut)] == whole
        pairs = [(text, "the sea and the dog") for text in texts]
        both = [list(hf(*pair, **options)["input_ids"]) for pair in pairs]
        assert [ids for ids, _ in tokenizer.encode_texts(pairs, cut)] == both
    assert tokenizer.encode(texts[0]) == tokenizer.encode_texts(texts[:1])[0][0]
