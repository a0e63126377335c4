"""Mistral (Jiang et al. 2023): Llama whose layers all see a sliding window, where the config has one."""

from __future__ import annotations

from typing import Any

from quire.models.llama import LlamaForCausalLM


class MistralForCausalLM(LlamaForCausalLM):
    """Mistral with its head."""

    @staticmethod
    def windows(hf_config: Any) -> tuple[int | None, ...]:
        return (hf_config.sliding_window,) * hf_config.num_hidden_layers
