"""Phi-1, 1.5 and 2 (Li et al. 2023): attention and feed-forward side by side on one norm, biases
everywhere, and rotary positions on a part of each head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from quire.layers.attention import Attention
from quire.layers.embedding import Embedding, LMHead
from quire.layers.linear import Linear, QKVLinear
from quire.layers.mlp import activation
from quire.layers.norm import LayerNorm
from quire.layers.rope import RotaryEmbedding
from quire.models.base import CausalLM
from quire.models.spec import ModelSpec
from quire_kernels.metadata import AttentionMetadata


class PhiAttention(nn.Module):
    """Attention with partial rotary positions: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        heads, kv_heads, head_dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        self.qkv_proj = QKVLinear(spec.hidden_size, heads, kv_heads, head_dim, bias=True)
        self.dense = Linear(heads * head_dim, spec.hidden_size, bias=True)
        norms = config.qk_layernorm
        self.q_layernorm = LayerNorm(head_dim, config.layer_norm_eps) if norms else nn.Identity()
        self.k_layernorm = LayerNorm(head_dim, config.layer_norm_eps) if norms else nn.Identity()
        self.attention = Attention(scale=head_dim**-0.5)

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata
    ) -> torch.Tensor:
        query, key, value = self.qkv_proj.heads_of(x)  # [tokens, heads, head_dim]
        query, key = self.q_layernorm(query), self.k_layernorm(key)
        return self.dense(self.attention(query, key, value, kv, meta, cos_sin))


class PhiMLP(nn.Module):
    """fc2(act(fc1(x)))."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size, bias=True)
        self.act = activation(config.hidden_act)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class PhiLayer(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)), with one norm for both."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.input_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = PhiAttention(config, spec)
        self.mlp = PhiMLP(config)

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata
    ) -> torch.Tensor:
        normed = self.input_layernorm(x)
        return x + self.self_attn(normed, cos_sin, kv, meta) + self.mlp(normed)


class PhiModel(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: Any, spec: ModelSpec, max_length: int) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = RotaryEmbedding(config, max_length)
        self.layers = nn.ModuleList(PhiLayer(config, spec) for _ in range(spec.num_layers))
        self.final_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        x = self.embed_tokens(ids)  # [tokens, hidden_size]
        cos_sin = self.rotary_emb(positions)
        for layer, layer_kv in zip(self.layers, kv, strict=True):
            x = layer(x, cos_sin, layer_kv, meta)
        return self.final_layernorm(x)


class PhiForCausalLM(CausalLM):
    """Phi with its head, which has a bias."""

    packed: ClassVar = {
        "q_proj": ("qkv_proj", "q"),
        "k_proj": ("qkv_proj", "k"),
        "v_proj": ("qkv_proj", "v"),
    }

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__(hf_config, max_length)
        self.model = PhiModel(hf_config, self.spec, self.max_length)
        tied = self.model.embed_tokens if hf_config.tie_word_embeddings else None
        self.lm_head = LMHead(hf_config.vocab_size, hf_config.hidden_size, bias=True, tied=tied)

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
