"""From a body's fields to `SamplingParams`. What depends on the model is checked by the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.api.protocol.fields import SamplingFields
from quire.errors import InvalidParamsError, UnsupportedParamError
from quire.sampling_params import GREEDY_BELOW, MIN_TEMPERATURE, SamplingParams
from quire.structured_outputs import StructuredOutputsParams

NAMES = tuple(SamplingFields.model_fields)  # each is a field of SamplingParams


def sampling_params(
    request: SamplingFields,
    structure: StructuredOutputsParams | None = None,
    *,
    limit: Mapping[str, int | None] | None = None,
    **more: Any,
) -> SamplingParams:
    """Parameters with what the request sets; the rest is left to the model's defaults.

    Args:
        structure: what else the request asks of the text.
        limit: `max_tokens`, where it is set, be it to None (see `to_end_of_context`).
        more: parameters that each endpoint has its own field for; None: not set.

    Raises:
        InvalidParamsError: fields that contradict each other.
    """
    given = {name: getattr(request, name) for name in NAMES} | more
    asked = request.structured_outputs
    if asked is not None:
        given["structured_outputs"] = StructuredOutputsParams(**_of_endpoint(asked))
    if structure is not None:
        if asked is not None:
            raise InvalidParamsError(
                "structured_outputs and a format of the answer exclude each other: give one",
                param="structured_outputs",
            )
        given["structured_outputs"] = structure
    given = {name: value for name, value in given.items() if value is not None}
    return SamplingParams(**{**given, **(limit or {})})


def _of_endpoint(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the endpoint takes of `structured_outputs`."""
    for name in ("validators", "max_retries", "on_failure"):
        if name in asked:
            raise UnsupportedParamError(
                f"structured_outputs.{name}: validators are Python functions, and run in process only: use "
                "LLM or AsyncLLM",
                param=f"structured_outputs.{name}",
            )
    return asked


def to_end_of_context(asked: int | None, defaults: Mapping[str, Any]) -> dict[str, int | None]:
    """`max_tokens` of a chat, which goes on to the end of the context (None) unless told otherwise.

    Args:
        asked: the request's limit.
        defaults: of the model; its own `max_tokens` stands where the request has none.
    """
    return {} if asked is None and "max_tokens" in defaults else {"max_tokens": asked}


def sampling_warnings(request: SamplingFields) -> tuple[str, ...]:
    """What is done otherwise than the request says."""
    temperature = request.temperature
    if temperature is not None and GREEDY_BELOW <= temperature < MIN_TEMPERATURE:
        return (f"temperature {temperature:g} was raised to {MIN_TEMPERATURE:g}",)
    if temperature is not None and 0 < temperature < GREEDY_BELOW:
        return (f"temperature {temperature:g} was taken as 0 (greedy)",)
    return ()
