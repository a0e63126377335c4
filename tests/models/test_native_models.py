"""Native models against transformers, on tiny random checkpoints in float32."""

from __future__ import annotations

import random

import pytest
import torch

from paged_batches import Blocks, make_metadata, make_positions
from quire.config import EngineConfig
from quire.hub import bundled_model, find_model
from quire.models.loader import load_model
from tiny_models import ARCHITECTURES, make_checkpoint

ATOL = 1e-4


def load(folder, **options):
    options = {"dtype": "float32", "device": "cpu", **options}
    config = EngineConfig(model=str(folder), **options)
    return load_model(find_model(config), config)


def reference_logits(folder, sequences):
    """transformers' logits, one sequence at a time: list of [len, vocab]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0] for ids in sequences]


def make_cache(model, num_blocks, block_size):
    shape = model.spec.kv_cache_shape(num_blocks, block_size)
    return [torch.full(shape, torch.nan, dtype=model.dtype) for _ in range(model.spec.num_layers)]


def run_schedule(model, sequences, schedule, block_size):
    """Run forwards of (sequence, tokens) steps through one cache: list of [len, vocab] logits."""
    blocks = Blocks(num_blocks=400, block_size=block_size, seed=block_size)
    tables = [blocks.table(len(ids)) for ids in sequences]
    kv = make_cache(model, 400, block_size)
    done = [0] * len(sequences)
    logits = [[] for _ in sequences]
    for step in schedule:
        members = [index for index, _ in step]
        new = [length for _, length in step]
        cached = [done[index] for index in members]
        ids = [sequences[index][done[index] : done[index] + length] for index, length in step]
        meta = make_metadata([tables[index] for index in members], cached, new, block_size)
        with torch.no_grad():
            hidden = model(
                torch.tensor([token for part in ids for token in part]),
                make_positions(cached, new), kv, meta,
            )  # fmt: skip
            scores = model.logits(hidden)
        assert hidden.shape == (sum(new), model.spec.hidden_size)
        assert scores.shape == (sum(new), model.spec.vocab_size) and scores.dtype == torch.float32
        for index, part in zip(members, scores.split(new), strict=True):
            logits[index].append(part)
            done[index] += len(part)
    return [torch.cat(parts) for parts in logits]


def random_sequences(rng, lengths):
    return [[rng.randrange(256) for _ in range(length)] for length in lengths]


def random_schedule(rng, sequences):
    """Steps in which sequences at different progress bring chunks and single tokens."""
    left = {index: len(ids) for index, ids in enumerate(sequences)}
    while left:
        members = [index for index in left if rng.random() < 0.7] or list(left)[:1]
        step = []
        for index in members:
            length = min(left[index], rng.choice([1, 1, 3, 8, 30]))
            step.append((index, length))
            left[index] -= length
            if not left[index]:
                del left[index]
        yield step


def check(folder, *, seed=0, lengths=(45, 3, 30, 1, 17), block_sizes=(8,), **options):
    """Whole prompts at once, one prompt in chunks, and mixed batches, against transformers."""
    rng = random.Random(seed)
    sequences = random_sequences(rng, lengths)
    expected = reference_logits(folder, sequences)
    model = load(folder, **options)
    for block_size in block_sizes:
        whole = [[(index, len(ids)) for index, ids in enumerate(sequences)]]
        chunks = [[(0, 7)], [(0, 1)], [(0, lengths[0] - 9)], [(0, 1)]]
        compare(run_schedule(model, sequences, whole, block_size), expected)
        compare(run_schedule(model, sequences[:1], chunks, block_size), expected[:1])
        mixed = list(random_schedule(rng, sequences))
        compare(run_schedule(model, sequences, mixed, block_size), expected)
    return model


def compare(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=1e-4)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_logits_equal_transformers(model_type, tmp_path):
    folder = make_checkpoint(tmp_path, model_type)
    model = check(folder, block_sizes=(1, 8, 16))
    assert model.spec.architecture == ARCHITECTURES[model_type][0]
    assert model.spec.max_positions == 256


@pytest.mark.parametrize(
    "model_type, overrides",
    [
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"head_dim": 16}),
        ("llama", {"hidden_act": "gelu"}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"head_dim": 16, "tie_word_embeddings": True}),
        ("qwen2", {"use_sliding_window": False}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
        ("phi", {"num_key_value_heads": 2, "qk_layernorm": True}),
        ("phi", {"partial_rotary_factor": 1.0, "tie_word_embeddings": True}),
        ("phi3", {"sliding_window": 12}),
        ("phi3", {"tie_word_embeddings": True, "partial_rotary_factor": 0.5}),
        ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
        ("gemma2", {"attention_bias": True, "tie_word_embeddings": False}),
        ("gpt2", {"n_inner": 40, "scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"scale_attn_weights": False, "activation_function": "relu"}),
    ],
    ids=str,
)
def test_variants_equal_transformers(model_type, overrides, tmp_path):
    check(make_checkpoint(tmp_path, model_type, **overrides))


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 4.0, 8.0]
}  # fmt: skip


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 500.0},
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        YARN,
        {**YARN, "attention_factor": 1.3, "beta_fast": 16, "beta_slow": 2, "truncate": False},
        {**YARN, "mscale": 0.7, "mscale_all_dim": 0.4},
        LLAMA3,
        {"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0},
    ],
    ids=lambda rope: "-".join(str(value) for value in rope.values()),
)
def test_every_rope_kind_equals_transformers(rope, tmp_path):
    rope = {"rope_theta": 10000.0, **rope}
    check(make_checkpoint(tmp_path, "llama", rope_parameters=rope), lengths=(90, 3, 40))


def longrope_checkpoint(folder):
    return make_checkpoint(
        folder,
        "phi3",
        rope_parameters={**LONGROPE, "rope_theta": 10000.0},
        original_max_position_embeddings=64,
    )


def test_longrope_takes_short_factors_where_nothing_can_be_longer(tmp_path):
    check(longrope_checkpoint(tmp_path), lengths=(64, 3, 40), max_model_len=64)


def test_longrope_takes_long_factors_where_sequences_can_be_longer(tmp_path):
    check(longrope_checkpoint(tmp_path), lengths=(90, 65, 120))


def test_dynamic_rope_beyond_the_original_length_equals_generation_token_by_token(tmp_path):
    from transformers import AutoModelForCausalLM

    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    folder = make_checkpoint(tmp_path, "llama", rope_parameters=rope, max_position_embeddings=32)
    ids = random_sequences(random.Random(0), [60])[0]
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    cache, expected = None, []
    with torch.no_grad():
        for part in (ids[:32], *([token] for token in ids[32:])):
            output = reference(torch.tensor([part]), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            expected.append(output.logits[0])
    model = load(folder)
    assert model.spec.max_positions == 128
    for schedule in ([[(0, 60)]], [[(0, 40)], [(0, 1)], [(0, 19)]]):
        compare(run_schedule(model, [ids], schedule, 8), [torch.cat(expected)])


def test_yarn_extends_the_longest_sequence(tmp_path):
    rope = {**YARN, "rope_theta": 10000.0, "factor": 8.0}
    folder = make_checkpoint(tmp_path, "llama", rope_parameters=rope)
    assert load(folder).spec.max_positions == 512


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_stays_near_float32(dtype, tmp_path):
    folder = make_checkpoint(tmp_path, "gemma2")
    sequences = random_sequences(random.Random(0), [30])
    whole = [[(0, 30)]]
    high = run_schedule(load(folder), sequences, whole, 8)[0]
    model = load(folder, dtype=dtype)
    assert model.dtype == getattr(torch, dtype)
    low = run_schedule(model, sequences, whole, 8)[0]
    assert (high - low).abs().max() < 0.15 * high.abs().max()


def test_the_bundled_model_equals_transformers():
    check(bundled_model(), lengths=(70, 5))
