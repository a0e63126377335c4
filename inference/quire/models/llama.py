"""Llama (Touvron et al. 2023), and the frame of the models that followed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from quire.layers.attention import Attention
from quire.layers.embedding import Embedding, LMHead
from quire.layers.linear import Linear, QKVLinear
from quire.layers.mlp import GatedMLP
from quire.layers.norm import RMSNorm
from quire.layers.rope import RotaryEmbedding
from quire.models.base import CausalLM
from quire.models.spec import ModelSpec
from quire_kernels.metadata import AttentionMetadata


class LlamaAttention(nn.Module):
    """Grouped-query attention with rotary positions: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(
        self, config: Any, spec: ModelSpec, index: int, *, qkv_bias: bool, out_bias: bool
    ) -> None:
        super().__init__()
        heads, kv_heads, head_dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        self.qkv_proj = QKVLinear(spec.hidden_size, heads, kv_heads, head_dim, bias=qkv_bias)
        self.o_proj = Linear(heads * head_dim, spec.hidden_size, bias=out_bias)
        self.attention = Attention(scale=head_dim**-0.5, window=spec.windows[index])

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata
    ) -> torch.Tensor:
        query, key, value = self.qkv_proj.heads_of(x)  # [tokens, heads, head_dim]
        return self.o_proj(self.attention(query, key, value, kv, meta, cos_sin))


class LlamaLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Each sum is left to the norm that comes next, which does both at once: what goes from layer to layer is
    the last term, and `residual`, all that came before it.
    """

    def __init__(self, config: Any, attention: nn.Module) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = attention
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMLP(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            bias=getattr(config, "mlp_bias", False),
        )

    def forward(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        cos_sin: torch.Tensor,
        kv: torch.Tensor,
        meta: AttentionMetadata,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        normed, residual = self.input_layernorm.add(x, residual)
        attended = self.self_attn(normed, cos_sin, kv, meta)
        normed, residual = self.post_attention_layernorm.add(attended, residual)
        return self.mlp(normed), residual


class LlamaModel(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: Any, layers: Sequence[nn.Module], max_length: int) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = RotaryEmbedding(config, max_length)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        x = self.embed_tokens(ids)  # [tokens, hidden_size]
        cos_sin = self.rotary_emb(positions)
        residual = None
        for layer, layer_kv in zip(self.layers, kv, strict=True):
            x, residual = layer(x, residual, cos_sin, layer_kv, meta)
        return self.norm.add(x, residual)[0]


class LlamaForCausalLM(CausalLM):
    """Llama with its head."""

    packed: ClassVar = {
        "q_proj": ("qkv_proj", "q"),
        "k_proj": ("qkv_proj", "k"),
        "v_proj": ("qkv_proj", "v"),
        "gate_proj": ("gate_up_proj", "gate"),
        "up_proj": ("gate_up_proj", "up"),
    }
    ignored: ClassVar = ("rotary_emb.inv_freq",)

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__(hf_config, max_length)
        layers = [
            LlamaLayer(hf_config, self.attention(hf_config, index))
            for index in range(self.spec.num_layers)
        ]
        self.model = LlamaModel(hf_config, layers, self.max_length)
        tied = self.model.embed_tokens if hf_config.tie_word_embeddings else None
        self.lm_head = LMHead(hf_config.vocab_size, hf_config.hidden_size, tied=tied)

    def attention(self, hf_config: Any, index: int) -> nn.Module:
        """The attention of layer `index`; where the models that follow Llama differ from it."""
        bias = getattr(hf_config, "attention_bias", False)
        return LlamaAttention(hf_config, self.spec, index, qkv_bias=bias, out_bias=bias)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        return self.model(ids, positions, kv, meta)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden)
