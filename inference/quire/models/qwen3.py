"""Qwen 3 (Yang et al. 2025): Llama whose queries and keys are normed, head by head."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quire.layers.attention import Attention
from quire.layers.linear import Linear, QKVLinear
from quire.layers.norm import RMSNorm
from quire.models.llama import LlamaForCausalLM
from quire.models.spec import ModelSpec, windows_of_types
from quire_kernels.metadata import AttentionMetadata


class Qwen3Attention(nn.Module):
    """Grouped-query attention over normed queries and keys: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(self, config: Any, spec: ModelSpec, index: int) -> None:
        super().__init__()
        heads, kv_heads, head_dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        bias = config.attention_bias
        self.qkv_proj = QKVLinear(spec.hidden_size, heads, kv_heads, head_dim, bias=bias)
        self.q_norm = RMSNorm(head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(head_dim, config.rms_norm_eps)
        self.o_proj = Linear(heads * head_dim, spec.hidden_size, bias=bias)
        self.attention = Attention(scale=head_dim**-0.5, window=spec.windows[index])

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, kv: torch.Tensor, meta: AttentionMetadata
    ) -> torch.Tensor:
        query, key, value = self.qkv_proj.heads_of(x)  # [tokens, heads, head_dim]
        query, key = self.q_norm(query), self.k_norm(key)
        return self.o_proj(self.attention(query, key, value, kv, meta, cos_sin))


class Qwen3ForCausalLM(LlamaForCausalLM):
    """Qwen 3 with its head."""

    @staticmethod
    def windows(hf_config: Any) -> tuple[int | None, ...]:
        return windows_of_types(hf_config)

    def attention(self, hf_config: Any, index: int) -> nn.Module:
        return Qwen3Attention(hf_config, self.spec, index)
