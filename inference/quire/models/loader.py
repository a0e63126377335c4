"""From a checkpoint on disk to a model ready to run. It knows files and tensors, not architectures."""

from __future__ import annotations

from quire.config import EngineConfig
from quire.hub.checkpoint import Checkpoint
from quire.models.base import CausalLM


def load_model(checkpoint: Checkpoint, config: EngineConfig) -> CausalLM:
    """Build the checkpoint's model and fill it with its weights.

    Args:
        checkpoint: from `quire.hub.find_model`.
        config: `dtype`, `device`, `load_format` and `seed` (of dummy weights) are read.

    Returns:
        The model in eval mode, gradients off, on its device; see its `spec`, `dtype` and `device`.

    Raises:
        UnsupportedModelError: no such architecture, or a feature of it that quire does not have.
        WeightsError: a tensor is missing, unexpected, misshapen or unreadable.
        DeviceMemoryError: the weights do not fit on the device.
        ConfigError: `device="cuda"` without one.
    """
