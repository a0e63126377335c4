"""What a caller may ask of an embedding or a score: `PoolingParams`, checked when made."""

from __future__ import annotations

from dataclasses import dataclass

from quire.errors import InvalidParamsError


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """How texts become vectors or scores; what is left at None is as the model's files say.

    Args:
        dimensions: keep only the first so many numbers of an embedding (Matryoshka), of unit length again
            where the model's embeddings are.
        use_activation: embeddings of unit length; scores through the model's activation (sigmoid, mostly).
        truncate_prompt_tokens: cut longer texts to so many tokens, special ones included, instead of
            refusing them; -1: to what the model takes.

    Raises:
        InvalidParamsError: a value that cannot be.
    """

    dimensions: int | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: int | None = None

    def __post_init__(self) -> None:
        _check_count("dimensions", self.dimensions, 1)
        _check_count("truncate_prompt_tokens", self.truncate_prompt_tokens, -1)
        if self.truncate_prompt_tokens == 0:
            raise InvalidParamsError(
                "truncate_prompt_tokens must be -1 (what the model takes) or above 0; got 0",
                param="truncate_prompt_tokens",
            )
        if self.use_activation not in (None, True, False):
            raise InvalidParamsError(
                f"use_activation must be True or False; got {self.use_activation!r}",
                param="use_activation",
            )


def _check_count(name: str, value: object, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidParamsError(
            f"{name} must be a whole number of at least {least}; got {value!r}", param=name
        )
