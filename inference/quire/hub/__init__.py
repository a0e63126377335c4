"""Where a model comes from: the bundled one, a folder, the Hugging Face cache or its hub."""

from __future__ import annotations

from quire.hub.bundled import bundled_model
from quire.hub.checkpoint import Checkpoint
from quire.hub.find import find_model

__all__ = ["Checkpoint", "bundled_model", "find_model"]
