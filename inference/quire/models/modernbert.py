"""ModernBERT (Warner et al. 2024): a pre-norm encoder with rotary positions and gated feed-forward, in which
most layers see their neighbourhood only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from quire.layers.embedding import Embedding
from quire.layers.encoder import EncoderAttention
from quire.layers.linear import Linear, QKVLinear
from quire.layers.mlp import activation
from quire.layers.norm import LayerNorm
from quire.layers.rope import RotaryEmbedding
from quire.models.encoder import Encoder
from quire.models.spec import ModelSpec
from quire_kernels import dispatch as ops
from quire_kernels.metadata import EncoderMetadata


class ModernBertEmbeddings(nn.Module):
    """norm(word)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.tok_embeddings = Embedding(config.vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.tok_embeddings(ids))


class ModernBertAttention(nn.Module):
    """Multi-head attention with rotary positions: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(self, config: Any, spec: ModelSpec, window: int | None) -> None:
        super().__init__()
        heads, head_dim, bias = spec.num_heads, spec.head_dim, config.attention_bias
        self.Wqkv = QKVLinear(spec.hidden_size, heads, heads, head_dim, bias=bias)
        self.Wo = Linear(spec.hidden_size, spec.hidden_size, bias=bias)
        self.attention = EncoderAttention(scale=head_dim**-0.5, window=window)

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, meta: EncoderMetadata
    ) -> torch.Tensor:
        query, key, value = self.Wqkv.heads_of(x)  # [tokens, heads, head_dim]
        query, key = ops.rotary_embedding(query, key, cos_sin)
        return self.Wo(self.attention(query, key, value, meta))


class ModernBertMLP(nn.Module):
    """Wo(act(gate) * up), gate and up computed as one."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        inner, bias = config.intermediate_size, config.mlp_bias
        self.Wi = Linear(config.hidden_size, 2 * inner, bias=bias)
        self.Wo = Linear(inner, config.hidden_size, bias=bias)
        self.act = activation(config.hidden_activation, gated=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.Wo(self.act(self.Wi(x)))


class ModernBertLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the first layer gets normed embeddings."""

    def __init__(self, config: Any, spec: ModelSpec, index: int) -> None:
        super().__init__()
        size, eps, bias = config.hidden_size, config.norm_eps, config.norm_bias
        self.kind: str = config.layer_types[index]
        window = config.sliding_window if self.kind == "sliding_attention" else None
        self.attn_norm = LayerNorm(size, eps, bias=bias) if index else nn.Identity()
        self.attn = ModernBertAttention(config, spec, window)
        self.mlp_norm = LayerNorm(size, eps, bias=bias)
        self.mlp = ModernBertMLP(config)

    def forward(
        self, x: torch.Tensor, cos_sin: torch.Tensor, meta: EncoderMetadata
    ) -> torch.Tensor:
        x = x + self.attn(self.attn_norm(x), cos_sin, meta)
        return x + self.mlp(self.mlp_norm(x))


class ModernBertModel(nn.Module):
    """Embeddings, layers and the last norm; each kind of layer has angles of its own."""

    def __init__(self, config: Any, spec: ModelSpec, max_length: int) -> None:
        super().__init__()
        self.embeddings = ModernBertEmbeddings(config)
        self.layers = nn.ModuleList(
            ModernBertLayer(config, spec, index) for index in range(spec.num_layers)
        )
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias)
        self.rotary = nn.ModuleDict(
            {
                kind: RotaryEmbedding(_rotary_config(config, spec, kind), max_length)
                for kind in dict.fromkeys(config.layer_types)
            }
        )

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, meta: EncoderMetadata
    ) -> torch.Tensor:
        x = self.embeddings(ids)
        cos_sin = {kind: rotary(positions) for kind, rotary in self.rotary.items()}
        for layer in self.layers:
            x = layer(x, cos_sin[str(layer.kind)], meta)
        return self.final_norm(x)


def _rotary_config(config: Any, spec: ModelSpec, kind: str) -> SimpleNamespace:
    """The config as it were if all layers were of one kind."""
    return SimpleNamespace(
        rope_parameters=config.rope_parameters[kind],
        head_dim=spec.head_dim,
        max_position_embeddings=config.max_position_embeddings,
    )


class ModernBertHead(nn.Module):
    """norm(act(dense(x)))."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.hidden_size
        self.dense = Linear(size, size, bias=config.classifier_bias)
        self.act = activation(config.classifier_activation)
        self.norm = LayerNorm(size, config.norm_eps, bias=config.norm_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.act(self.dense(x)))


class ModernBertEncoder(Encoder):
    """ModernBERT, with the head of a cross-encoder where the checkpoint has one."""

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__(hf_config, max_length)
        self.model = ModernBertModel(hf_config, self.spec, self.max_length)
        if self.scores:
            self.pooling = hf_config.classifier_pooling
            self.head = ModernBertHead(hf_config)
            self.classifier = Linear(hf_config.hidden_size, 1, bias=True)

    def renamed(self, name: str) -> str | None:
        """Leaves the head of masked language models out."""
        head = name.startswith(("head.", "decoder."))
        return None if head and not self.scores else super().renamed(name)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor,
        meta: EncoderMetadata,
    ) -> torch.Tensor:
        return self.model(ids, positions, meta)

    def score(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.head(vectors))
