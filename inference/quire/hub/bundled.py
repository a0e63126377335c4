"""The small model that ships with quire. Standard library alone."""

from __future__ import annotations

from pathlib import Path


def bundled_model() -> Path:
    """Folder of the model that ships with quire, the default wherever no model is named."""
    return Path(__file__).parent.parent / "assets" / "quire-mini"
