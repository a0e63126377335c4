"""Tiny random checkpoints of every native architecture, made by transformers' own classes.

    folder = make_checkpoint(tmp_path / "model", "llama", num_key_value_heads=1)

holds config.json, model.safetensors (float32) and a byte-level tokenizer of 256 bytes and three special
tokens. Weights depend on `seed` alone; biases and norms are random too, so that none goes untested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

BOS, EOS, PAD = 256, 257, 258  # after the 256 bytes
VOCAB_SIZE = 272

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
_WITHOUT_GROUPS = {**_COMMON, "num_key_value_heads": 4}

# model_type -> class name, settings
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", _COMMON),
    "mistral": ("MistralForCausalLM", {**_COMMON, "sliding_window": 12}),
    "qwen2": (
        "Qwen2ForCausalLM",
        {**_COMMON, "use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3ForCausalLM", {**_COMMON, "head_dim": 16}),
    "phi": ("PhiForCausalLM", _WITHOUT_GROUPS),
    "phi3": ("Phi3ForCausalLM", {**_COMMON, "original_max_position_embeddings": 256}),
    "gemma2": (
        "Gemma2ForCausalLM",
        {
            **_COMMON,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 12,
            # So low that a missing cap shows.
            "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 2.0,
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCAB_SIZE,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 256,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
        },
    ),
}


def make_model(model_type: str, *, seed: int = 0, **overrides: Any) -> Any:
    """A tiny random transformers model in float32 and eval mode.

    Args:
        model_type: one of `ARCHITECTURES`.
        seed: of the weights.
        overrides: settings of its config.
    """
    import transformers

    class_name, settings = ARCHITECTURES[model_type]
    config = transformers.AutoConfig.for_model(model_type, **{**settings, **overrides})
    config._attn_implementation = "eager"
    torch_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = getattr(transformers, class_name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 0.0 if parameter.dim() > 1 else parameter.mean()
            parameter.copy_(centre + torch.randn_like(parameter) * 0.15)
    torch.set_rng_state(torch_state)
    return model


def make_checkpoint(folder: Path, model_type: str, *, seed: int = 0, **overrides: Any) -> Path:
    """Save a tiny random model and its tokenizer; returns `folder`."""
    model = make_model(model_type, seed=seed, **overrides)
    model.generation_config = type(model.generation_config)(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD
    )
    model.save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder


def save_byte_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer without merges: one token per byte, and three special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<bos>", "<eos>", "<pad>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
        "chat_template": (
            "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n"
            "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
        ),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
