"""Gemma 2 (Gemma Team 2024): norms before and after each half of a layer, soft-capped scores and
logits, and windows in every other layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from quire.errors import UnsupportedModelError
from quire.layers.attention import Attention
from quire.layers.embedding import Embedding, LMHead
from quire.layers.linear import Linear, QKVLinear
from quire.layers.mlp import GatedMLP
from quire.layers.rope import RotaryEmbedding
from quire.models.base import CausalLM
from quire.models.spec import ModelSpec, windows_of_types
from quire_kernels import dispatch as ops
from quire_kernels.metadata import AttentionMetadata


class Gemma2RMSNorm(nn.Module):
    """Root mean square norm whose weight is kept as its difference from one."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x, 1.0 + self.weight.float(), self.eps)


class Gemma2Attention(nn.Module):
    """Grouped-query attention with soft-capped scores: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(self, config: Any, spec: ModelSpec, index: int) -> None:
        super().__init__()
        heads, kv_heads, head_dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        bias = config.attention_bias
        self.qkv_proj = QKVLinear(spec.hidden_size, heads, kv_heads, head_dim, bias=bias)
        self.o_proj = Linear(heads * head_dim, spec.hidden_size, bias=bias)
        self.attention = Attention(
            scale=config.query_pre_attn_scalar**-0.5,
            window=spec.windows[index],
            softcap=config.attn_logit_softcapping,
        )

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata
    ) -> torch.Tensor:
        query, key, value = self.qkv_proj.heads_of(x)  # [tokens, heads, head_dim]
        return self.o_proj(self.attention(query, key, value, kv, meta, cos_sin))


class Gemma2Layer(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x)))."""

    def __init__(self, config: Any, spec: ModelSpec, index: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = Gemma2RMSNorm(size, eps)
        self.self_attn = Gemma2Attention(config, spec, index)
        self.post_attention_layernorm = Gemma2RMSNorm(size, eps)
        self.pre_feedforward_layernorm = Gemma2RMSNorm(size, eps)
        self.mlp = GatedMLP(size, config.intermediate_size, config.hidden_activation, bias=False)
        self.post_feedforward_layernorm = Gemma2RMSNorm(size, eps)

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata
    ) -> torch.Tensor:
        attended = self.self_attn(self.input_layernorm(x), cos_sin, kv, meta)
        x = x + self.post_attention_layernorm(attended)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Gemma2Model(nn.Module):
    """Scaled embedding, layers and the last norm."""

    def __init__(self, config: Any, spec: ModelSpec, max_length: int) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.embed_scale = config.hidden_size**0.5
        self.rotary_emb = RotaryEmbedding(config, max_length)
        self.layers = nn.ModuleList(
            Gemma2Layer(config, spec, index) for index in range(spec.num_layers)
        )
        self.norm = Gemma2RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        x = self.embed_tokens(ids)  # [tokens, hidden_size]
        # The model was trained with the scale rounded to its own dtype.
        x = x * torch.tensor(self.embed_scale, dtype=x.dtype, device=x.device)
        cos_sin = self.rotary_emb(positions)
        for layer, layer_kv in zip(self.layers, kv, strict=True):
            x = layer(x, cos_sin, layer_kv, meta)
        return self.norm(x)


class Gemma2ForCausalLM(CausalLM):
    """Gemma 2 with its soft-capped head."""

    packed: ClassVar = {
        "q_proj": ("qkv_proj", "q"),
        "k_proj": ("qkv_proj", "k"),
        "v_proj": ("qkv_proj", "v"),
        "gate_proj": ("gate_up_proj", "gate"),
        "up_proj": ("gate_up_proj", "up"),
    }

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__(hf_config, max_length)
        if getattr(hf_config, "use_bidirectional_attention", None):
            raise UnsupportedModelError("Gemma 2 with use_bidirectional_attention cannot generate")
        self.model = Gemma2Model(hf_config, self.spec, self.max_length)
        tied = self.model.embed_tokens if hf_config.tie_word_embeddings else None
        self.lm_head = LMHead(hf_config.vocab_size, hf_config.hidden_size, tied=tied)
        self.softcap: float | None = hf_config.final_logit_softcapping

    @staticmethod
    def windows(hf_config: Any) -> tuple[int | None, ...]:
        return windows_of_types(hf_config)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        return self.model(ids, positions, kv, meta)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.lm_head(hidden)
        if self.softcap is None:
            return logits
        return torch.tanh(logits / self.softcap) * self.softcap
