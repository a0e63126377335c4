"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): BERT with positions that begin behind
that of padding, and a head of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from quire.layers.linear import Linear
from quire.models.bert import BertModel, check_encoder
from quire.models.encoder import Encoder
from quire_kernels.metadata import EncoderMetadata


class ClassificationHead(nn.Module):
    """out_proj(tanh(dense(x))): [texts, hidden] -> [texts, 1]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, hidden_size, bias=True)
        self.out_proj = Linear(hidden_size, 1, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.dense(x).tanh_())


class RobertaEncoder(Encoder):
    """RoBERTa, with the head of a cross-encoder where the checkpoint has one."""

    prefix: ClassVar = "roberta."
    not_ours: ClassVar = ("lm_head.", "roberta.pooler.", "pooler.")
    packed: ClassVar = {"query": ("qkv", "q"), "key": ("qkv", "k"), "value": ("qkv", "v")}

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        check_encoder(hf_config)
        super().__init__(hf_config, max_length)
        self.roberta = BertModel(hf_config, self.spec, pooler=False)
        if self.scores:
            self.classifier = ClassificationHead(hf_config.hidden_size)

    @staticmethod
    def first_position(hf_config: Any) -> int:
        return int(hf_config.pad_token_id) + 1

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor,
        meta: EncoderMetadata,
    ) -> torch.Tensor:
        return self.roberta(ids, positions + self.position_offset, segments, meta)

    def score(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.classifier(vectors)
