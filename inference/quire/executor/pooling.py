"""What a loaded model is for, and the last layers of those that make vectors or scores.

Puts together what three sides say: the checkpoint's files, the user's options and the model's class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from quire.config import EngineConfig
from quire.errors import ConfigError, suggest
from quire.executor.base import PoolingFacts
from quire.hub import Checkpoint
from quire.models.base import Model
from quire.models.dense import load_dense, out_features
from quire.models.encoder import Encoder
from quire.runner.pooler import Pooler

TYPES = {"CLS": "cls", "LAST": "last", "MEAN": "mean", "MAX": "max"}
CONFIG_KEYS = ("pooling_type", "use_activation")


def tasks_of(model: Model, checkpoint: Checkpoint, config: EngineConfig) -> frozenset[str]:
    """What the model can do: of "generate", "embed" and "score".

    A decoder generates, and embeds by its last token; one with sentence-transformers' files, or without a
    head, was made for embeddings, and generates only if `runner` says so.

    Raises:
        ConfigError: `runner` asks for what it cannot do.
    """
    encoder = isinstance(model, Encoder)
    headless = not encoder and not checkpoint.has_head
    if config.runner == "generate" and (encoder or headless):
        raise ConfigError(
            f"runner='generate': {model.spec.architecture} has no head that generates text; leave runner "
            "at 'auto'",
            param="runner",
        )
    if isinstance(model, Encoder):
        return frozenset({"score" if model.scores else "embed"})
    pools = config.runner == "pooling" or checkpoint.sentence.has_modules or headless
    if pools and config.runner != "generate":
        return frozenset({"embed"})
    return frozenset({"generate", "embed"})


def make_pooler(
    model: Model, checkpoint: Checkpoint, config: EngineConfig
) -> tuple[PoolingFacts, Pooler]:
    """How the model pools, and what does the last of it.

    Raises:
        ConfigError: `pooler_config` holds what it cannot.
        WeightsError, UnsupportedModelError: dense layers that do not fit.
    """
    settings = checkpoint.sentence
    chosen = _chosen(config.pooler_config or {})
    encoder = model if isinstance(model, Encoder) else None
    if encoder is not None and encoder.scores:
        facts = PoolingFacts(method=encoder.pooling, whole=True, lower_case=settings.lower_case)
        identity = settings.activation == "Identity"
        activation = torch.nn.Identity() if identity else torch.sigmoid
        return facts, Pooler(lambda vectors: encoder.score(vectors.to(encoder.dtype)), activation)
    dense = load_dense(settings.dense, model.spec.hidden_size, model.device)
    method = (
        chosen.get("method") or settings.method or ("last" if encoder is None else encoder.pooling)
    )
    activate = chosen.get("activate")
    if activate is None:
        activate = settings.normalize is not False
    facts = PoolingFacts(
        method=method,
        activate=activate,
        size=out_features(dense, model.spec.hidden_size),
        whole=encoder is not None,
        include_prompt=settings.include_prompt,
        prompts=settings.prompts,
        default_prompt_name=settings.default_prompt_name,
        lower_case=settings.lower_case,
    )
    return facts, Pooler(dense)


def _chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """`pooler_config`, checked."""
    for name in options:
        if name not in CONFIG_KEYS:
            raise ConfigError(
                f"pooler_config has {name!r}, which is none of {', '.join(CONFIG_KEYS)}"
                f"{suggest(str(name), CONFIG_KEYS)}",
                param="pooler_config",
            )
    kind, activate = options.get("pooling_type"), options.get("use_activation")
    if kind is not None and str(kind).upper() not in TYPES:
        raise ConfigError(
            f"pooling_type must be one of {', '.join(TYPES)}; got {kind!r}", param="pooler_config"
        )
    if activate is not None and not isinstance(activate, bool):
        raise ConfigError(
            f"use_activation must be True or False; got {activate!r}", param="pooler_config"
        )
    return {"method": None if kind is None else TYPES[str(kind).upper()], "activate": activate}
