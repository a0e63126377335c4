"""Phi-3 (Abdin et al. 2024): Llama with a window, whose checkpoints hold the projections merged
already, as quire keeps them. Its long-context versions take longrope."""

from __future__ import annotations

from typing import Any, ClassVar

from quire.models.llama import LlamaForCausalLM


class Phi3ForCausalLM(LlamaForCausalLM):
    """Phi-3 with its head."""

    packed: ClassVar = {}

    @staticmethod
    def windows(hf_config: Any) -> tuple[int | None, ...]:
        return (hf_config.sliding_window,) * hf_config.num_hidden_layers
