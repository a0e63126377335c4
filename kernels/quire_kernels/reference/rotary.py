"""Rotary position embedding (Su et al. 2021), in the half-split layout of Hugging Face checkpoints."""

from __future__ import annotations

import torch

from quire_kernels.reference.attention import write_kv


def rotary_angles(
    positions: torch.Tensor, frequencies: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Cosines and sines of each position's angles.

    Args:
        positions: int64, [tokens].
        frequencies: float32, [r / 2], radians per position; or [tokens, r / 2], each token's own.
        scaling: multiplies cosines and sines.

    Returns:
        float32, [tokens, r]: cosines, then sines.
    """
    angles = positions[:, None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1) * scaling


def rotary_and_write_kv(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cos_sin: torch.Tensor,
    kv_cache: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """`rotary_embedding`, then `write_kv` of the rotated keys; returns the rotated queries.

    Args:
        query: [tokens, heads, head_dim].
        key: [tokens, kv_heads, head_dim].
        value: the same.
        cos_sin: float32, [tokens, r]; see `rotary_embedding`.
        kv_cache: [2, blocks, kv_heads, block_size, head_dim]; written in place.
        slots: int64, [tokens], `block_id * block_size + offset`.
    """
    query, key = rotary_embedding(query, key, cos_sin)
    write_kv(key, value, kv_cache, slots)
    return query


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
