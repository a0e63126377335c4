"""sentence-transformers' files, of old releases and of new ones, and what is wrong with damaged ones."""

from __future__ import annotations

import json

import pytest

from quire.errors import ModelNotFoundError, UnsupportedModelError
from quire.hub.download import TEXT_FILES, _matching, weights_of
from quire.hub.sentence_transformers import SentenceSettings, read_sentence_settings

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


def write(folder, files):
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))


def modules(*kinds, new=False):
    return [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": NEW[kind] if new else OLD + kind,
        }
        for i, kind in enumerate(kinds)
    ]


def test_nothing(tmp_path):
    assert read_sentence_settings(tmp_path, {}) == SentenceSettings()


def test_old_release(tmp_path):
    write(
        tmp_path,
        {
            "modules.json": modules("Transformer", "Pooling", "Dense", "Normalize"),
            "1_Pooling/config.json": {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": True,
            },
            "sentence_bert_config.json": {"max_seq_length": 77, "do_lower_case": True},
            "tokenizer_config.json": {"model_max_length": 512},
        },
    )
    settings = read_sentence_settings(tmp_path, {})
    assert (settings.method, settings.normalize, settings.include_prompt) == ("mean", True, True)
    assert settings.dense == (tmp_path / "2_Dense",)
    assert (settings.max_seq_length, settings.lower_case) == (77, True)
    assert settings.has_modules and settings.prompts == {}


def test_new_release(tmp_path):
    write(
        tmp_path,
        {
            "modules.json": modules("Transformer", "Pooling", new=True),
            "1_Pooling/config.json": {
                "embedding_dimension": 32,
                "pooling_mode": "lasttoken",
                "include_prompt": False,
            },
            "sentence_bert_config.json": {"transformer_task": "feature-extraction"},
            "tokenizer_config.json": {"model_max_length": 256},
            "config_sentence_transformers.json": {
                "prompts": {"query": "q: ", "document": ""},
                "default_prompt_name": "query",
            },
        },
    )
    settings = read_sentence_settings(tmp_path, {})
    assert (settings.method, settings.normalize, settings.include_prompt) == ("last", False, False)
    assert settings.max_seq_length == 256
    assert settings.prompts == {"query": "q: ", "document": ""}
    assert settings.default_prompt_name == "query"


def test_a_tokenizer_without_a_limit(tmp_path):
    write(
        tmp_path,
        {
            "modules.json": modules("Transformer", "Pooling"),
            "1_Pooling/config.json": {"pooling_mode": "cls"},
            "tokenizer_config.json": {"model_max_length": int(1e30)},
        },
    )
    assert read_sentence_settings(tmp_path, {}).max_seq_length is None


@pytest.mark.parametrize(
    "files, error, message",
    [
        ({"modules.json": "[{"}, ModelNotFoundError, "no list of modules"),
        ({"modules.json": {"a": 1}}, ModelNotFoundError, "no list of modules"),
        ({"modules.json": modules("Transformer", "Pooling")}, ModelNotFoundError, "1_Pooling"),
        ({"modules.json": modules("Transformer", "LSTM")}, UnsupportedModelError, "LSTM"),
        (
            {
                "modules.json": modules("Transformer", "Pooling"),
                "1_Pooling/config.json": {
                    "pooling_mode_cls_token": True,
                    "pooling_mode_mean_tokens": True,
                },
            },
            UnsupportedModelError,
            "cls, mean",
        ),
        (
            {
                "modules.json": modules("Transformer", "Pooling"),
                "1_Pooling/config.json": {"pooling_mode": "attention"},
            },
            UnsupportedModelError,
            "attention",
        ),
        (
            {
                "modules.json": [
                    {"idx": 0, "name": "0", "path": "../elsewhere", "type": OLD + "Transformer"}
                ]
            },
            ModelNotFoundError,
            "outside of the folder",
        ),
        (
            {"config_sentence_transformers.json": {"activation_fn": "torch.nn.Softplus"}},
            UnsupportedModelError,
            "Softplus",
        ),
    ],
)
def test_faults(files, error, message, tmp_path):
    write(tmp_path, files)
    with pytest.raises(error, match=message):
        read_sentence_settings(tmp_path, {})


def test_what_is_downloaded():
    names = [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "pytorch_model.bin",
        "onnx/model.onnx",
    ]
    small = _matching(names, TEXT_FILES)
    assert small == [n for n in names if n.endswith(".json")]
    assert weights_of(names, "auto") == ["model.safetensors", "2_Dense/model.safetensors"]
