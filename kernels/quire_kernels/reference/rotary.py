"""Rotary position embedding (Su et al. 2021), in the half-split layout of Hugging Face checkpoints."""

from __future__ import annotations

import torch


def rotary_embedding(
    query: torch.Tensor, key: torch.Tensor, cos_sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys by their positions' angles.

    Dimension i of a head is paired with dimension i + r / 2. Dimensions from r on stay as they are
    (partial rotary).

    Args:
        query: [tokens, heads, head_dim].
        key: [tokens, kv_heads, head_dim].
        cos_sin: float32, [tokens, r]: cosines of the r / 2 angles of each token, then their sines.

    Returns:
        Rotated query and key, in new tensors of the inputs' dtypes.
    """
    cos, sin = cos_sin.unsqueeze(1).chunk(2, dim=-1)  # [tokens, 1, r / 2]
    return _rotate(query, cos, sin), _rotate(key, cos, sin)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((rotated.to(x.dtype), x[..., 2 * half :]), dim=-1)
