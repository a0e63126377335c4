"""transformers as the oracle: greedy continuations and log-probabilities of a checkpoint in float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class Oracle:
    """What transformers says of the checkpoint in `folder`, remembered by prompt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._greedy: dict[tuple[tuple[int, ...], int], list[int]] = {}

    @cached_property
    def model(self) -> Any:
        model = AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=torch.float32, attn_implementation="eager"
        )
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model.eval()

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """`count` tokens after the prompt, by `generate`, alone and unpadded."""
        key = (tuple(prompt), count)
        if key not in self._greedy:
            with torch.inference_mode():
                ids = self.model.generate(
                    torch.tensor([list(prompt)]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=count,
                    min_new_tokens=count,
                    do_sample=False,
                )
            self._greedy[key] = ids[0, len(prompt) :].tolist()
        return self._greedy[key]

    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """[len(ids), vocabulary]: row i holds what follows ids[: i + 1]."""
        with torch.inference_mode():
            logits = self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        return torch.log_softmax(logits.float(), dim=-1)
