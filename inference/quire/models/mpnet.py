"""MPNet (Song et al. 2020): BERT without segments, with a bias on scores for the distance of two tokens."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn

from quire.layers.embedding import Embedding
from quire.layers.encoder import EncoderAttention
from quire.layers.linear import Linear, QKVLinear
from quire.layers.norm import LayerNorm
from quire.models.bert import AddAndNorm, Intermediate
from quire.models.encoder import Encoder
from quire.models.roberta import ClassificationHead
from quire.models.spec import ModelSpec
from quire_kernels.metadata import EncoderMetadata

PADDING = 1  # MPNet's positions begin behind this one, whatever its config says
FARTHEST = 128  # tokens; all that is farther apart shares a bucket


class MPNetEmbeddings(nn.Module):
    """norm(word + position)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(positions))


class MPNetSelfAttention(nn.Module):
    """Multi-head attention with its output projection: [tokens, hidden] -> [tokens, hidden]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        heads, head_dim = spec.num_heads, spec.head_dim
        self.qkv = QKVLinear(spec.hidden_size, heads, heads, head_dim, bias=True)
        self.o = Linear(spec.hidden_size, spec.hidden_size, bias=True)
        self.attention = EncoderAttention(scale=head_dim**-0.5)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        query, key, value = self.qkv.heads_of(x)  # [tokens, heads, head_dim]
        return self.o(self.attention(query, key, value, meta, bias))


class MPNetAttention(nn.Module):
    """norm(x + attention(x))."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.attn = MPNetSelfAttention(spec)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        return self.LayerNorm(self.attn(x, bias, meta).add_(x))


class MPNetLayer(nn.Module):
    """Attention, then feed-forward, each with its sum and norm."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.attention = MPNetAttention(config, spec)
        self.intermediate = Intermediate(config)
        self.output = AddAndNorm(config.intermediate_size, config)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        x = self.attention(x, bias, meta)
        return self.output(self.intermediate(x), x)


class MPNetLayers(nn.Module):
    """All layers, and the biases that they share."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.num_buckets = config.relative_attention_num_buckets
        self.layer = nn.ModuleList(MPNetLayer(config, spec) for _ in range(spec.num_layers))
        self.relative_attention_bias = Embedding(self.num_buckets, spec.num_heads)

    def forward(self, x: torch.Tensor, meta: EncoderMetadata) -> torch.Tensor:
        bias = self._bias(meta.longest, x.device)
        for layer in self.layer:
            x = layer(x, bias, meta)
        return x

    def _bias(self, length: int, device: torch.device) -> torch.Tensor:
        """[heads, length, length], at [:, i, j] of the score of positions i and j."""
        position = torch.arange(length, device=device)
        buckets = bucket_of(position - position[:, None], self.num_buckets)
        return self.relative_attention_bias(buckets).permute(2, 0, 1).contiguous()


def bucket_of(distance: torch.Tensor, num_buckets: int) -> torch.Tensor:
    """The bucket of each distance j - i, as in T5: half of them for each direction.

    Small distances have one each; larger ones share them, on a logarithmic scale up to `FARTHEST`.

    Args:
        distance: int64, any shape.
    """
    half = num_buckets // 2
    exact = half // 2
    ahead = (distance > 0).long() * half
    distance = distance.abs()
    scale = (half - exact) / math.log(FARTHEST / exact)
    far = exact + (torch.log(distance.clamp(min=1).float() / exact) * scale).long()
    return ahead + torch.where(distance < exact, distance, far.clamp(max=half - 1))


class MPNetModel(nn.Module):
    """Embeddings and layers."""

    def __init__(self, config: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.embeddings = MPNetEmbeddings(config)
        self.encoder = MPNetLayers(config, spec)

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, meta: EncoderMetadata
    ) -> torch.Tensor:
        return self.encoder(self.embeddings(ids, positions), meta)


class MPNetEncoder(Encoder):
    """MPNet, with the head of a cross-encoder where the checkpoint has one."""

    prefix: ClassVar = "mpnet."
    not_ours: ClassVar = ("lm_head.", "mpnet.pooler.", "pooler.")
    packed: ClassVar = {"q": ("qkv", "q"), "k": ("qkv", "k"), "v": ("qkv", "v")}

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__(hf_config, max_length)
        self.mpnet = MPNetModel(hf_config, self.spec)
        if self.scores:
            self.classifier = ClassificationHead(hf_config.hidden_size)

    @staticmethod
    def first_position(hf_config: Any) -> int:
        return PADDING + 1

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor,
        meta: EncoderMetadata,
    ) -> torch.Tensor:
        return self.mpnet(ids, positions + self.position_offset, meta)

    def score(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.classifier(vectors)
