"""Where a model comes from: the bundled one, a folder, the Hugging Face cache or its hub."""

from quire.hub.bundled import bundled_model
from quire.hub.cache import CachedModel, cached_models
from quire.hub.checkpoint import Checkpoint
from quire.hub.download import fetch_weights
from quire.hub.find import find_model

__all__ = [
    "CachedModel",
    "Checkpoint",
    "bundled_model",
    "cached_models",
    "fetch_weights",
    "find_model",
]
