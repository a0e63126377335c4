"""`SamplingParams`: values it refuses, and names that are no more or not here."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from quire.errors import InvalidParamsError, UnknownParamError
from quire.sampling_params import RETIRED, SamplingParams


@pytest.mark.parametrize(
    "fields",
    [
        {"ignore_eos": 1},
        {"detokenize": "no"},
        {"skip_special_tokens": None},
        {"include_stop_str_in_output": "true"},
        {"spaces_between_special_tokens": 0},
        {"temperature": float("nan")},
        {"temperature": 2.1},
        {"top_p": 0},
        {"top_k": 2**70},
        {"n": True},
        {"n": 2, "temperature": 0},
        {"min_tokens": 17},
        {"stop": ["a", ""]},
        {"logit_bias": {"a": 1}},
        {"allowed_token_ids": []},
        {"bad_words": "word"},
    ],
    ids=str,
)
def test_a_value_that_a_field_cannot_have(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError) as caught:
        SamplingParams(**fields)
    assert caught.value.param in fields


@pytest.mark.parametrize("name", RETIRED)
def test_names_that_are_not_here_say_what_to_write(name: str) -> None:
    assert name not in {field.name for field in dataclasses.fields(SamplingParams)}
    with pytest.raises(UnknownParamError, match=f"'{name}' is not a sampling parameter: "):
        SamplingParams(**{name: 1})
