"""BERT (Devlin et al. 2019): a post-norm encoder with learned positions and segments."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from quire.errors import UnsupportedModelError
from quire.layers.embedding import Embedding
from quire.layers.encoder import EncoderAttention
from quire.layers.linear import Linear, QKVLinear
from quire.layers.mlp import activation
from quire.layers.norm import LayerNorm
from quire.models.encoder import Encoder
from quire.models.spec import ModelSpec
from quire_kernels.metadata import EncoderMetadata


class BertEmbeddings(nn.Module):
    """norm(word + segment + position)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = Embedding(config.vocab_size, size)
        self.position_embeddings = Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps)

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor
    ) -> torch.Tensor:
        words = self.word_embeddings(ids) + self.token_type_embeddings(segments)
        return self.LayerNorm(words + self.position_embeddings(positions))


class BertSelfAttention(nn.Module):
    """Multi-head attention without its output projection: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        heads, head_dim = spec.num_heads, spec.head_dim
        self.qkv = QKVLinear(spec.hidden_size, heads, heads, head_dim, bias=True)
        self.attention = EncoderAttention(scale=head_dim**-0.5)

    def forward(self, x: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        query, key, value = self.qkv.heads_of(x)  # [tokens, heads, head_dim]
        return self.attention(query, key, value, meta)


class AddAndNorm(nn.Module):
    """norm(residual + dense(x))."""

    def __init__(self, in_features: int, config: Any) -> None:
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size, bias=True)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dense(x).add_(residual))


class BertAttention(nn.Module):
    """Self-attention, its projection, the sum and the norm."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.self = BertSelfAttention(spec)
        self.output = AddAndNorm(config.hidden_size, config)

    def forward(self, x: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        return self.output(self.self(x, meta), x)


class Intermediate(nn.Module):
    """act(dense(x)): [tokens, hidden] -> [tokens, intermediate]."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, bias=True)
        self.act = activation(config.hidden_act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.dense(x))


class BertLayer(nn.Module):
    """Attention, then feed-forward, each with its sum and norm."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.attention = BertAttention(config, spec)
        self.intermediate = Intermediate(config)
        self.output = AddAndNorm(config.intermediate_size, config)

    def forward(self, x: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        x = self.attention(x, meta)
        return self.output(self.intermediate(x), x)


class BertLayers(nn.Module):
    """All layers."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config, spec) for _ in range(spec.num_layers))

    def forward(self, x: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        for layer in self.layer:
            x = layer(x, meta)
        return x


class BertPooler(nn.Module):
    """tanh(dense(x)): what the head of a cross-encoder reads."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x).tanh_()


class BertModel(nn.Module):
    """Embeddings and layers; the pooler where a head follows."""

    def __init__(self, config: Any, spec: ModelSpec, *, pooler: bool) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertLayers(config, spec)
        if pooler:
            self.pooler = BertPooler(config)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor,
        meta: EncoderMetadata,
    ) -> torch.Tensor:
        return self.encoder(self.embeddings(ids, positions, segments), meta)


def check_encoder(config: Any) -> None:
    """Refuse what BERT's config class allows and these files do not compute.

    Raises:
        UnsupportedModelError: relative positions, or a decoder.
    """
    kind = getattr(config, "position_embedding_type", None) or "absolute"
    if kind != "absolute":
        raise UnsupportedModelError(f"position_embedding_type {kind!r}; quire has absolute ones")
    if getattr(config, "is_decoder", False):
        raise UnsupportedModelError("is_decoder: quire runs models of this family as encoders only")


class BertEncoder(Encoder):
    """BERT, with the head of a cross-encoder where the checkpoint has one."""

    prefix: ClassVar = "bert."
    not_ours: ClassVar = ("cls.",)
    packed: ClassVar = {"query": ("qkv", "q"), "key": ("qkv", "k"), "value": ("qkv", "v")}

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        check_encoder(hf_config)
        super().__init__(hf_config, max_length)
        self.bert = BertModel(hf_config, self.spec, pooler=self.scores)
        if self.scores:
            self.classifier = Linear(hf_config.hidden_size, 1, bias=True)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor,
        meta: EncoderMetadata,
    ) -> torch.Tensor:
        return self.bert(ids, positions, segments, meta)

    def score(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.bert.pooler(vectors))
