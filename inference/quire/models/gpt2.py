"""GPT-2 (Radford et al. 2019): learned positions, layer norms, and weights that checkpoints hold
transposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from quire.errors import UnsupportedModelError
from quire.layers.attention import Attention
from quire.layers.embedding import Embedding, LMHead
from quire.layers.linear import Linear, QKVLinear
from quire.layers.mlp import activation
from quire.layers.norm import LayerNorm
from quire.models.base import CausalLM
from quire.models.spec import ModelSpec
from quire_kernels.metadata import AttentionMetadata


class GPT2Attention(nn.Module):
    """Multi-head attention without positions: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(self, config: Any, spec: ModelSpec, index: int) -> None:
        super().__init__()
        size, heads = spec.hidden_size, spec.num_heads
        self.c_attn = QKVLinear(size, heads, heads, spec.head_dim, bias=True, transposed=True)
        self.c_proj = Linear(size, size, bias=True, transposed=True)
        scale = spec.head_dim**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= index + 1
        self.attention = Attention(scale=scale)

    def forward(self, x: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata) -> torch.Tensor:
        query, key, value = self.c_attn.heads_of(x)  # [tokens, heads, head_dim]
        return self.c_proj(self.attention(query, key, value, kv, meta))


class GPT2MLP(nn.Module):
    """c_proj(act(c_fc(x)))."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        inner = config.n_inner or 4 * config.hidden_size
        self.c_fc = Linear(config.hidden_size, inner, bias=True, transposed=True)
        self.act = activation(config.activation_function)
        self.c_proj = Linear(inner, config.hidden_size, bias=True, transposed=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class GPT2Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Any, spec: ModelSpec, index: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = GPT2Attention(config, spec, index)
        self.ln_2 = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = GPT2MLP(config)

    def forward(self, x: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x), kv, meta)
        return x + self.mlp(self.ln_2(x))


class GPT2Model(nn.Module):
    """Embeddings of tokens and positions, blocks and the last norm."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.wte = Embedding(config.vocab_size, config.hidden_size)
        self.wpe = Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(GPT2Block(config, spec, index) for index in range(spec.num_layers))
        self.ln_f = LayerNorm(config.hidden_size, config.layer_norm_epsilon)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(positions)  # [tokens, hidden_size]
        for block, block_kv in zip(self.h, kv, strict=True):
            x = block(x, block_kv, meta)
        return self.ln_f(x)


class GPT2LMHeadModel(CausalLM):
    """GPT-2 with its head."""

    prefix: ClassVar = "transformer."
    ignored: ClassVar = (".attn.bias", ".attn.masked_bias")  # causal masks

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__(hf_config, max_length)
        if hf_config.add_cross_attention:
            raise UnsupportedModelError("GPT-2 with add_cross_attention needs an encoder")
        self.transformer = GPT2Model(hf_config, self.spec)
        tied = self.transformer.wte if hf_config.tie_word_embeddings else None
        self.lm_head = LMHead(hf_config.vocab_size, hf_config.hidden_size, tied=tied)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        return self.transformer(ids, positions, kv, meta)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden)
