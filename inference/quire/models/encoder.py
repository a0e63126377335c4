"""What every encoder is to the rest of quire: whole texts in, a hidden state for each token out.

An encoder's tokens see each other both ways, so a text is computed at once or not at all, and nothing is
cached. How its hidden states become one vector is the pooler's (`quire.runner.pooler`).
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any, ClassVar

import torch

from quire.errors import UnsupportedModelError
from quire.models.base import Model
from quire_kernels.metadata import EncoderMetadata

CLASSIFIER = "ForSequenceClassification"


class Encoder(Model):
    """Base of encoders; with a head of one label it is a cross-encoder, which scores a pair of texts.

    Raises:
        UnsupportedModelError: a head of several labels.

    Attributes:
        scores: whether there is a head.
        pooling: how vectors are made where nothing else says so, and what the head's input is.
        not_ours: beginnings of names of tensors that belong to heads quire has no use for.
        position_offset: rows of the table of positions before that of the first token.
    """

    pooling: str = "cls"
    not_ours: ClassVar[tuple[str, ...]] = ()

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__(hf_config, max_length)
        self.position_offset = self.first_position(hf_config)
        positions = self.spec.max_positions - self.position_offset
        self.spec = dataclasses.replace(self.spec, max_positions=positions)
        self.max_length = max_length or positions
        self.scores = self.spec.architecture.endswith(CLASSIFIER)
        if self.scores and hf_config.num_labels != 1:
            raise UnsupportedModelError(
                f"{self.spec.architecture} with num_labels={hf_config.num_labels} is a classifier; quire "
                "runs cross-encoders, which have one label"
            )

    @staticmethod
    def first_position(hf_config: Any) -> int:
        """Row of the table of positions where the first token's stands."""
        return 0

    def renamed(self, name: str) -> str | None:
        """Leaves out heads that are not used; knows the names that norms had in TensorFlow."""
        if name.endswith("position_ids") or name.startswith(self.not_ours):
            return None
        if not self.scores and name.removeprefix(self.prefix).startswith("pooler."):
            return None
        for theirs, ours in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(theirs):
                name = name.removesuffix(theirs) + ours
        return super().renamed(name)

    @abstractmethod
    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor,
        meta: EncoderMetadata,
    ) -> torch.Tensor:
        """Run all layers over a batch of whole texts.

        Args:
            ids: int64, [tokens].
            positions: int64, [tokens], of each token in its own text, from 0.
            segments: int64, [tokens], 1 for the second text of a pair, else 0.
            meta: which rows belong to which text.

        Returns:
            [tokens, hidden_size], of the last layer.
        """

    @abstractmethod
    def score(self, vectors: torch.Tensor) -> torch.Tensor:
        """What the head makes of pooled hidden states: [texts, hidden_size] -> [texts, 1]; `scores` only."""
