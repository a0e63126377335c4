"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values, and windows in
the upper layers where `use_sliding_window` asks for them."""

from __future__ import annotations

from typing import Any

from torch import nn

from quire.models.llama import LlamaAttention, LlamaForCausalLM
from quire.models.spec import windows_of_types


class Qwen2ForCausalLM(LlamaForCausalLM):
    """Qwen 2 with its head."""

    @staticmethod
    def windows(hf_config: Any) -> tuple[int | None, ...]:
        return windows_of_types(hf_config)

    def attention(self, hf_config: Any, index: int) -> nn.Module:
        return LlamaAttention(hf_config, self.spec, index, qkv_bias=True, out_bias=False)
