"""What int8 costs in accuracy, and which layers it is for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from paged_batches import Blocks, make_metadata, make_positions
from quire.config import EngineConfig
from quire.errors import ConfigError, UnsupportedModelError
from quire.hub import bundled_model, find_model
from quire.models.base import CausalLM
from quire.models.loader import load_model
from quire.quant.int8 import Int8Weight
from tiny_models import make_checkpoint, make_model

# The kind of text that the bundled model knows: elsewhere its perplexity is in the thousands, and noise.
STORIES = """\
Every Saturday, Igor went to the market. More than anything, Igor wanted to travel to Tokyo. \
Igor lost the way and had to ask a doctor. Igor found a free plate under a stone. Igor thought \
about it for a long time. Ben laughed and said that it could not be done. In the end Igor \
learned that good friends matter most.
It was a grey morning when Karl left home. More than anything, Karl wanted to buy a short \
helmet. But then, the goldfish followed Karl all the way. Karl sang a song and felt better. When \
night came, Karl was home again.
Every Thursday, Aisha went to the market. The plan was to open a small shop. A chemist stopped \
and asked what was wrong. "Do not be afraid," said the engineer. At last everything was well, \
and Aisha went home happy.
Once upon a time, Laura lived in a famous flat above a shop. More than anything, Laura wanted to \
catch the first train. Suddenly, the wind grew strong and the sky turned black. Uma laughed and \
said that it could not be done. It began to rain, and Laura waited under a tree. Laura sang a \
song and felt better. The goat followed Laura all the way. In the morning the sun came out \
again. And Laura lived happily ever after.
"""


def load(folder: Path, **options: object) -> CausalLM:
    config = EngineConfig.from_options(model=str(folder), device="cpu", **options)
    return load_model(find_model(config), config)


def logits(model: CausalLM, ids: list[int]) -> torch.Tensor:
    """Of every position, in one step: [len(ids), vocab_size]."""
    blocks = Blocks(num_blocks=len(ids) // 16 + 2, block_size=16, seed=0)
    shape = model.spec.kv_cache_shape(len(ids) // 16 + 2, 16)
    kv = [torch.empty(shape, dtype=model.dtype) for _ in range(model.spec.num_layers)]
    meta = make_metadata([blocks.table(len(ids))], [0], [len(ids)], 16)
    with torch.inference_mode():
        hidden = model(torch.tensor(ids), make_positions([0], [len(ids)]), kv, meta)
        return model.logits(hidden)


SHAPES = {
    "llama": {"hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6},
    "qwen2": {"hidden_size": 448, "intermediate_size": 1216, "num_attention_heads": 7,
              "num_key_value_heads": 1, "tie_word_embeddings": True},
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", SHAPES)
def test_logits_of_random_models(name: str, dtype: str, tmp_path: Path) -> None:
    """Weights as a fresh model has them. Limits of bfloat16 alone, in the same test: 0.9999."""
    shape = {**SHAPES[name], "num_hidden_layers": 4}
    folder = make_checkpoint(tmp_path, name, **shape)
    model = make_model(name, **shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.02 / 0.15)
    model.save_pretrained(folder)
    rng = random.Random(0)
    ids = [rng.randrange(256) for _ in range(100)]
    exact = logits(load(folder, dtype="float32"), ids).double()
    plain = logits(load(folder, dtype=dtype), ids).double()
    assert torch.cosine_similarity(exact, plain).min() > 0.9998
    quantized = logits(load(folder, dtype=dtype, quantization="int8"), ids).double()
    similar = torch.cosine_similarity(exact, quantized)
    assert similar.mean() > 0.9993 and similar.min() > 0.999


def test_perplexity_of_the_bundled_model() -> None:
    folder = bundled_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stories = [tokenizer(story)["input_ids"] for story in STORIES.splitlines()]

    def perplexity(**options: object) -> float:
        model = load(folder, dtype="bfloat16", **options)
        losses = [
            F.cross_entropy(logits(model, ids)[:-1], torch.tensor(ids[1:])) for ids in stories
        ]
        return float(torch.stack(losses).mean().exp())

    plain = perplexity()
    assert plain < 10
    assert perplexity(quantization="int8") == pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize("tied", [True, False])
def test_which_weights_become_integers(tied: bool, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "llama", tie_word_embeddings=tied)
    model = load(folder, dtype="bfloat16", quantization="int8")
    assert model.dtype == torch.bfloat16  # of activations and KV cache
    integers = {name for name, p in model.named_parameters() if isinstance(p, Int8Weight)}
    layers = {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}
    expected = {f"model.layers.{i}.{layer}.weight" for i in range(3) for layer in layers}
    assert integers == expected | {"model.embed_tokens.weight" if tied else "lm_head.weight"}
    plain = load(folder, dtype="bfloat16")
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        if isinstance(ours, Int8Weight):
            expected_weight = theirs.plain()
            size = expected_weight.abs().max()
            assert (ours.plain() - expected_weight).abs().max() < 0.01 * size


def test_only_known_schemes() -> None:
    with pytest.raises(ConfigError, match="quantization must be one of int8"):
        EngineConfig(quantization="int7")


def test_a_quantized_checkpoint_is_not_quantized_again(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "llama")
    overrides = {"quantization_config": {"quant_method": "gptq"}}
    with pytest.raises(UnsupportedModelError, match="gptq"):
        load(folder, quantization="int8", hf_overrides=overrides)
