"""Native encoders against transformers, on tiny random checkpoints in float32."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire.config import EngineConfig
from quire.errors import UnsupportedModelError, WeightsError
from quire.hub import find_model
from quire.models.loader import load_model
from quire_kernels.metadata import EncoderMetadata
from tiny_encoders import ENCODERS, make_encoder_model

ATOL = 1e-4
LENGTHS = [1, 2, 2, 7, 23, 23, 61, 120]


def load(folder, **options):
    config = EngineConfig(model=str(folder), device="cpu", **options)
    return load_model(find_model(config), config)


def texts(seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(2, 256) for _ in range(length)] for length in LENGTHS]


def hidden_states(model, sequences, segments=None):
    """quire's hidden states of sequences in ascending order of length: list of [len, hidden]."""
    lengths = [len(ids) for ids in sequences]
    groups = tuple((lengths.count(length), length) for length in sorted(set(lengths)))
    flat = torch.tensor([token for ids in sequences for token in ids])
    positions = torch.cat([torch.arange(length) for length in lengths])
    second = torch.zeros_like(flat) if segments is None else segments
    with torch.inference_mode():
        return model(flat, positions, second, EncoderMetadata(groups)).split(lengths)


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_hidden_states(model_type, head, tmp_path):
    theirs = make_encoder_model(model_type, head)
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    base = theirs.base_model
    sequences = texts()
    for ids, found in zip(sequences, hidden_states(ours, sequences), strict=True):
        with torch.inference_mode():
            expected = base(torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(found, expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_scores(model_type, tmp_path):
    theirs = make_encoder_model(model_type, "ForSequenceClassification", num_labels=1)
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    sequences = texts(1)
    found = torch.stack([rows[0] for rows in hidden_states(ours, sequences)])
    with torch.inference_mode():
        scores = ours.score(found)
        expected = torch.cat([theirs(torch.tensor([ids])).logits for ids in sequences])
    assert scores.shape == (len(sequences), 1)
    torch.testing.assert_close(scores, expected, atol=ATOL, rtol=0)


def test_segments(tmp_path):
    theirs = make_encoder_model("bert")
    theirs.save_pretrained(tmp_path)
    [ids] = texts()[6:7]
    second = torch.tensor([0] * 20 + [1] * (len(ids) - 20))
    [found] = hidden_states(load(tmp_path), [ids], second)
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids]), token_type_ids=second[None]).last_hidden_state[0]
    torch.testing.assert_close(found, expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_longest_text(model_type, tmp_path):
    """The last row of the table of positions belongs to the longest text, and no further one is used."""
    theirs = make_encoder_model(model_type)
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    offset = 2 if model_type in ("roberta", "xlm-roberta", "mpnet") else 0
    assert ours.spec.max_positions == 130 - offset
    ids = [random.Random(3).randrange(2, 256) for _ in range(ours.spec.max_positions)]
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(hidden_states(ours, [ids])[0], expected, atol=ATOL, rtol=0)


def test_names_of_old_checkpoints(tmp_path):
    """Norms by TensorFlow's names, a prefix on a plain model, and a table of positions' numbers."""
    theirs = make_encoder_model("bert")
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(file).items():
        if "LayerNorm" in name:
            name = name.replace("weight", "gamma").replace("bias", "beta")
        tensors["bert." + name] = tensor
    tensors["bert.embeddings.position_ids"] = torch.arange(130)[None]
    tensors["cls.seq_relationship.weight"] = torch.zeros(2, 32)
    save_file(tensors, file, metadata={"format": "pt"})
    [ids] = texts()[4:5]
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(hidden_states(load(tmp_path), [ids])[0], expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
def test_loading_is_strict(change, tmp_path):
    make_encoder_model("bert", "ForSequenceClassification", num_labels=1).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.1.attention.self.key.weight"
    if change == "missing":
        del tensors[name]
    elif change == "misshapen":
        tensors[name] = tensors[name][:, :5].contiguous()
    else:
        name = "bert.encoder.layer.9.output.dense.bias"
        tensors[name] = torch.zeros(32)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=name):
        load(tmp_path)


def test_what_is_not_an_encoder_for_us(tmp_path):
    make_encoder_model("bert", "ForSequenceClassification", num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="num_labels=3"):
        load(tmp_path)
    make_encoder_model("bert").save_pretrained(tmp_path / "relative")
    with pytest.raises(UnsupportedModelError, match="relative_key"):
        load(tmp_path / "relative", hf_overrides={"position_embedding_type": "relative_key"})
