"""Embeddings and scores as transformers computes them, one text at a time, the pooling written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F


class Reference:
    """A checkpoint run by transformers in float32.

    Args:
        folder: of the checkpoint.
        scores: whether it is a cross-encoder.
    """

    def __init__(self, folder: Path, *, scores: bool = False) -> None:
        from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

        loader: Any = AutoModelForSequenceClassification if scores else AutoModel
        self.model = loader.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def hidden(self, token_ids: Sequence[int]) -> torch.Tensor:
        """[tokens, hidden_size]."""
        with torch.inference_mode():
            states: torch.Tensor = self.model(torch.tensor([list(token_ids)])).last_hidden_state[0]
        return states

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def embedding(
        self, text: str | Sequence[int], method: str, *, normalize: bool = True, skip: int = 0
    ) -> torch.Tensor:
        """One text's, or token ids', vector; `skip` tokens at its beginning do not count."""
        hidden = self.hidden(self.ids(text) if isinstance(text, str) else text)
        vector = pooled(hidden, method, skip)
        return F.normalize(vector, dim=0) if normalize else vector

    def logit(self, query: str, document: str) -> float:
        """Of a pair of texts, before any activation."""
        encoded = self.tokenizer(query, document, return_tensors="pt", return_token_type_ids=True)
        names = ("input_ids", "token_type_ids")
        if self.model.config.model_type in ("mpnet", "modernbert"):
            names = names[:1]
        with torch.inference_mode():
            logits = self.model(**{name: encoded[name] for name in names}).logits
        return float(logits[0, 0])


def pooled(hidden: torch.Tensor, method: str, skip: int = 0) -> torch.Tensor:
    """One vector of [tokens, hidden_size]."""
    counted = hidden[skip:]
    match method:
        case "cls":
            return hidden[0]
        case "last":
            return hidden[-1]
        case "mean":
            return counted.mean(0)
        case "max":
            return counted.amax(0)
        case "mean_sqrt_len":
            return counted.sum(0) / math.sqrt(len(counted))
    assert method == "weighted_mean"
    weights = torch.arange(1, len(hidden) + 1)[skip:, None].float()
    return (counted * weights).sum(0) / weights.sum()
