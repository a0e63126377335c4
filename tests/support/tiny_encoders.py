"""Tiny random encoders of every native family, with a tokenizer and sentence-transformers' files.

    folder = make_encoder(tmp_path / "embedder", "bert", pooling="mean", normalize=True)
    folder = make_encoder(tmp_path / "reranker", "bert", scores=True)

Weights are float32 and depend on `seed` alone; biases and norms are random too, so that none goes untested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

CLS, SEP, PAD, MASK, UNK = 256, 257, 258, 259, 260  # after the 256 bytes
VOCAB_SIZE = 272
SIZE = 32

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": SIZE,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "pad_token_id": PAD,
}
_ROBERTA = {
    **_COMMON,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
}

# flag in sentence-transformers' files -> quire's name
POOLING_FLAGS = {
    "cls_token": "cls",
    "mean_tokens": "mean",
    "max_tokens": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean_tokens": "weighted_mean",
    "lasttoken": "last",
}
# model_type -> beginning of its class names, settings
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _COMMON),
    "roberta": ("Roberta", _ROBERTA),
    "xlm-roberta": ("XLMRoberta", _ROBERTA),
    "mpnet": ("MPNet", {**_COMMON, "pad_token_id": 1}),
    "modernbert": (
        "ModernBert",
        {
            **_COMMON,
            "local_attention": 8,
            "cls_token_id": CLS,
            "sep_token_id": SEP,
            "bos_token_id": CLS,
            "eos_token_id": SEP,
        },
    ),
}


def make_encoder_model(
    model_type: str, head: str = "Model", *, seed: int = 0, **overrides: Any
) -> Any:
    """A tiny random transformers model in float32 and eval mode.

    Args:
        model_type: one of `ENCODERS`.
        head: end of the class name: "Model", "ForMaskedLM" or "ForSequenceClassification".
        overrides: settings of its config.
    """
    import transformers

    name, settings = ENCODERS[model_type]
    config = transformers.AutoConfig.for_model(model_type, **{**settings, **overrides})
    config._attn_implementation = "eager"
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = getattr(transformers, name + head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 0.0 if parameter.dim() > 1 else parameter.mean()
            parameter.copy_(centre + torch.randn_like(parameter) * 0.15)
    torch.set_rng_state(state)
    return model


def make_encoder(
    folder: Path,
    model_type: str = "bert",
    *,
    scores: bool = False,
    seed: int = 0,
    pooling: str | None = "mean",
    normalize: bool = True,
    dense: int | None = None,
    max_seq_length: int | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    **overrides: Any,
) -> Path:
    """Save a tiny random embedder, or a cross-encoder, with its tokenizer; returns `folder`.

    Args:
        scores: make a cross-encoder of one label.
        pooling: one of `POOLING_FLAGS`' values; None: none of sentence-transformers' files.
        normalize: whether its modules end with a normalisation.
        dense: width of a dense layer (tanh) between these.
        max_seq_length, prompts, default_prompt_name: as in its files.
        overrides: settings of the model's config.
    """
    if scores:
        overrides = {"num_labels": 1, **overrides}
    head = "ForSequenceClassification" if scores else "Model"
    make_encoder_model(model_type, head, seed=seed, **overrides).save_pretrained(folder)
    save_pair_tokenizer(folder, segments=model_type == "bert")
    if pooling is not None and not scores:
        save_modules(folder, pooling, normalize=normalize, dense=dense, seed=seed)
        prompt_settings = {
            "prompts": dict(prompts or {}),
            "default_prompt_name": default_prompt_name,
        }
        _write(folder / "config_sentence_transformers.json", prompt_settings)
        _write(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length})
    return folder


def save_modules(
    folder: Path, pooling: str, *, normalize: bool, dense: int | None = None, seed: int = 0
) -> None:
    """Write sentence-transformers' list of modules and what belongs to each of them."""
    kinds = [
        "Transformer",
        "Pooling",
        *(["Dense"] if dense else []),
        *(["Normalize"] if normalize else []),
    ]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": "" if index == 0 else f"{index}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    _write(
        folder / "1_Pooling/config.json",
        {f"pooling_mode_{flag}": method == pooling for flag, method in POOLING_FLAGS.items()},
    )
    if dense:
        from safetensors.torch import save_file

        _write(
            folder / "2_Dense/config.json",
            {
                "in_features": SIZE,
                "out_features": dense,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
            },
        )
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            "linear.weight": torch.randn(dense, SIZE, generator=generator) * 0.2,
            "linear.bias": torch.randn(dense, generator=generator) * 0.2,
        }
        save_file(tensors, str(folder / "2_Dense/model.safetensors"))


def save_pair_tokenizer(folder: Path, *, segments: bool = True) -> None:
    """A tokenizer of one token per byte that writes `[CLS] text [SEP]`, or `[CLS] a [SEP] b [SEP]`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"])
    second = ":1" if segments else ":0"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B{second} [SEP]{second}",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
            "unk_token": "[UNK]",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 128,
        },
    )


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1))
