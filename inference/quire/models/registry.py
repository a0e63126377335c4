"""Which architectures are native, and where their code is.

A model's file is imported when it is asked for, so that a list of names costs no torch.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from quire.errors import UnsupportedModelError, suggest

if TYPE_CHECKING:
    from quire.models.base import Model

MODELS = MappingProxyType(
    {
        "BertForMaskedLM": "quire.models.bert:BertEncoder",
        "BertForSequenceClassification": "quire.models.bert:BertEncoder",
        "BertModel": "quire.models.bert:BertEncoder",
        "GPT2LMHeadModel": "quire.models.gpt2:GPT2LMHeadModel",
        "Gemma2ForCausalLM": "quire.models.gemma2:Gemma2ForCausalLM",
        "LlamaForCausalLM": "quire.models.llama:LlamaForCausalLM",
        "LlamaModel": "quire.models.llama:LlamaForCausalLM",
        "MPNetForMaskedLM": "quire.models.mpnet:MPNetEncoder",
        "MPNetForSequenceClassification": "quire.models.mpnet:MPNetEncoder",
        "MPNetModel": "quire.models.mpnet:MPNetEncoder",
        "MistralForCausalLM": "quire.models.mistral:MistralForCausalLM",
        "MistralModel": "quire.models.mistral:MistralForCausalLM",
        "ModernBertForMaskedLM": "quire.models.modernbert:ModernBertEncoder",
        "ModernBertForSequenceClassification": "quire.models.modernbert:ModernBertEncoder",
        "ModernBertModel": "quire.models.modernbert:ModernBertEncoder",
        "Phi3ForCausalLM": "quire.models.phi3:Phi3ForCausalLM",
        "PhiForCausalLM": "quire.models.phi:PhiForCausalLM",
        "Qwen2ForCausalLM": "quire.models.qwen2:Qwen2ForCausalLM",
        "Qwen2Model": "quire.models.qwen2:Qwen2ForCausalLM",
        "Qwen3ForCausalLM": "quire.models.qwen3:Qwen3ForCausalLM",
        "Qwen3Model": "quire.models.qwen3:Qwen3ForCausalLM",
        "RobertaForMaskedLM": "quire.models.roberta:RobertaEncoder",
        "RobertaForSequenceClassification": "quire.models.roberta:RobertaEncoder",
        "RobertaModel": "quire.models.roberta:RobertaEncoder",
        "XLMRobertaForMaskedLM": "quire.models.roberta:RobertaEncoder",
        "XLMRobertaForSequenceClassification": "quire.models.roberta:RobertaEncoder",
        "XLMRobertaModel": "quire.models.roberta:RobertaEncoder",
    }
)


def is_native(architecture: str | None) -> bool:
    """Whether quire has the architecture that config.json names."""
    return architecture in MODELS


def model_class(hf_config: Any) -> type[Model]:
    """The class that runs a config's architecture.

    Args:
        hf_config: a `transformers.PretrainedConfig`; its `architectures` are looked at.

    Raises:
        UnsupportedModelError: listing the architectures that exist.
    """
    names: list[str] = list(getattr(hf_config, "architectures", None) or [])
    for name in names:
        if name in MODELS:
            module, _, attribute = MODELS[name].partition(":")
            found: type[Model] = getattr(importlib.import_module(module), attribute)
            return found
    known = ", ".join(MODELS)
    if not names:
        raise UnsupportedModelError(
            'config.json names no architecture; give one with hf_overrides={"architectures": '
            f"[...]}}. quire has: {known}"
        )
    raise UnsupportedModelError(
        f"architecture {names[0]!r} is not among those quire has ({known}){suggest(names[0], MODELS)}"
    )
