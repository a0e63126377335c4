"""/v1/models: OpenAI's model object with what clients of vLLM look for."""

from __future__ import annotations

from typing import Any

from quire.api.backend import Backend


def model_card(backend: Backend, name: str) -> dict[str, Any]:
    """The model under one of its names.

    Raises:
        ModelNotFoundError: it has no such name.
    """
    name = backend.model_name(name)
    return {
        "id": name,
        "object": "model",
        "created": backend.started,
        "owned_by": "quire",
        "root": backend.engine.config.model or name,
        "parent": None,
        "max_model_len": backend.engine.max_model_len,
        "permission": [
            {
                "id": f"modelperm-{name}",
                "object": "model_permission",
                "created": backend.started,
                "allow_create_engine": False,
                "allow_sampling": True,
                "allow_logprobs": True,
                "allow_search_indices": False,
                "allow_view": True,
                "allow_fine_tuning": False,
                "organization": "*",
                "group": None,
                "is_blocking": False,
            }
        ],
    }


def model_list(backend: Backend) -> dict[str, Any]:
    """The model under all of its names."""
    return {"object": "list", "data": [model_card(backend, name) for name in backend.model_names]}
