"""What every model is to the rest of quire: a spec, the names of its weights, and what it computes.

A model knows nothing of requests, scheduling, sampling or where its weights come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from quire.models.spec import ModelSpec, read_spec
from quire_kernels.metadata import AttentionMetadata


class Model(nn.Module, ABC):
    """What decoders and encoders have in common.

    Subclasses build their modules in `__init__` under Hugging Face's weight names.

    Args:
        hf_config: a `transformers.PretrainedConfig`.
        max_length: longest sequence that the model will be run on; default: what the config allows.

    Attributes:
        spec: sizes and limits.
        max_length: longest sequence that the model will be run on.
        prefix: what names of the checkpoint start with, all but the head's; one that was saved
            without the head may lack it.
        packed: which modules of the checkpoint are merged here: last part of a module's name in the
            checkpoint -> (the same here, part of its weight), e.g. `{"q_proj": ("qkv_proj", "q")}`.
        ignored: ends of names of tensors that old checkpoints hold and nobody needs.
    """

    prefix: ClassVar[str] = "model."
    packed: ClassVar[Mapping[str, tuple[str, str]]] = {}
    ignored: ClassVar[tuple[str, ...]] = ()

    def __init__(self, hf_config: Any, max_length: int | None = None) -> None:
        super().__init__()
        self.spec: ModelSpec = read_spec(hf_config, self.windows(hf_config))
        self.max_length = max_length or self.spec.max_positions

    @staticmethod
    def windows(hf_config: Any) -> tuple[int | None, ...] | None:
        """Sliding window of each layer; None where no layer has one."""
        return None

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, activations and KV cache."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def renamed(self, name: str) -> str | None:
        """What a checkpoint's tensor is called here, `prefix` and `packed` aside; None: nobody needs it."""
        return None if name.endswith(self.ignored) else name


class CausalLM(Model):
    """A decoder: token ids in, hidden states out, and logits where they are asked for."""

    @abstractmethod
    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kv: Sequence[torch.Tensor],
        meta: AttentionMetadata,
    ) -> torch.Tensor:
        """Run all layers over a mixed batch and write its keys and values to the cache.

        Args:
            ids: int64, [tokens].
            positions: int64, [tokens], of each token in its own sequence.
            kv: per layer a tensor [2, blocks, kv_heads, block_size, head_dim] of the model's dtype.
            meta: which rows belong to which sequence, and where their blocks lie.

        Returns:
            [tokens, hidden_size], after the final norm.
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token: [rows, hidden_size] -> float32 [rows, vocab_size]."""
