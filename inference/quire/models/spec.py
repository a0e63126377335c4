"""What the rest of quire must know of a model without looking inside: sizes, widths, limits.

Read from the Hugging Face config alone; it knows neither weights nor devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quire.errors import UnsupportedModelError
from quire.layers.rope import max_positions


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Shape of a decoder or an encoder; an encoder has no KV cache.

    Args:
        architecture: class name of the checkpoint, e.g. "LlamaForCausalLM".
        num_layers: each has one KV cache tensor.
        hidden_size: width of what the model's `forward` returns.
        num_heads: query heads of each layer.
        num_kv_heads: key and value heads of each layer.
        head_dim: width of one head.
        vocab_size: width of the logits; token ids are below this.
        max_positions: longest sequence that the config allows, rope scaling included.
        windows: per layer, how many positions a token sees (itself included); None: all.
    """

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    windows: tuple[int | None, ...]

    def kv_cache_shape(self, num_blocks: int, block_size: int) -> tuple[int, int, int, int, int]:
        """Shape of one layer's KV cache: [2, blocks, kv_heads, block_size, head_dim], K then V."""
        return (2, num_blocks, self.num_kv_heads, block_size, self.head_dim)

    def kv_bytes_per_token(self, bytes_per_element: int) -> int:
        """Bytes that one token's keys and values take in all layers together."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_element


def read_spec(hf_config: Any, windows: tuple[int | None, ...] | None = None) -> ModelSpec:
    """The spec of a Hugging Face config, under whichever standard names it uses.

    Args:
        hf_config: a `transformers.PretrainedConfig` of a text decoder (`attribute_map` resolved by it).
        windows: per layer; default: no layer has a window.

    Raises:
        UnsupportedModelError: the heads do not divide as grouped attention needs.
    """
    architecture = (getattr(hf_config, "architectures", None) or [type(hf_config).__name__])[0]
    num_layers = int(hf_config.num_hidden_layers)
    hidden_size = int(hf_config.hidden_size)
    num_heads = int(hf_config.num_attention_heads)
    num_kv_heads = int(getattr(hf_config, "num_key_value_heads", None) or num_heads)
    head_dim = getattr(hf_config, "head_dim", None)
    if num_heads % num_kv_heads:
        raise UnsupportedModelError(
            f"{architecture}: num_attention_heads={num_heads} is no multiple of "
            f"num_key_value_heads={num_kv_heads}; correct config.json"
        )
    if head_dim is None and hidden_size % num_heads:
        raise UnsupportedModelError(
            f"{architecture}: hidden_size={hidden_size} is no multiple of "
            f"num_attention_heads={num_heads}, and config.json has no head_dim"
        )
    windows = windows or (None,) * num_layers
    assert len(windows) == num_layers
    return ModelSpec(
        architecture=architecture,
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=int(head_dim or hidden_size // num_heads),
        vocab_size=int(hf_config.vocab_size),
        max_positions=max_positions(hf_config),
        windows=windows,
    )


def windows_of_types(hf_config: Any) -> tuple[int | None, ...]:
    """Windows of a config that names each layer's kind in `layer_types`.

    Raises:
        UnsupportedModelError: a kind of attention other than full and sliding.
    """
    for kind in hf_config.layer_types:
        if kind not in ("full_attention", "sliding_attention"):
            raise UnsupportedModelError(
                f"layer_types names {kind!r}; quire has full_attention and sliding_attention"
            )
    return tuple(
        hf_config.sliding_window if kind == "sliding_attention" else None
        for kind in hf_config.layer_types
    )
