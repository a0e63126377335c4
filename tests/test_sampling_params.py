"""`SamplingParams`: values it refuses, and names that are no more or not here."""

from __future__ import annotations

import copy
import dataclasses
import pickle
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


def test_a_misspelt_field_cannot_be_assigned() -> None:
    params = SamplingParams()
    with pytest.raises(UnknownParamError, match="did you mean 'temperature'"):
        params.temprature = 0.5  # type: ignore[attr-defined]


def test_fields_are_set_at_construction_and_by_assignment() -> None:
    params = SamplingParams(top_k=0)
    params.temperature = 1.0  # its default, and still the caller's word
    for one in (params, params.clone(), copy.deepcopy(params), pickle.loads(pickle.dumps(params))):
        assert one == params
        assert one.fields_set() == {"top_k", "temperature"}
        filled = one.with_defaults({"temperature": 0.6, "top_k": 5, "top_p": 0.9})
        assert (filled.temperature, filled.top_k, filled.top_p) == (1.0, 0, 0.9)
    copied = copy.copy(params)
    copied.min_p = 0.5
    assert "min_p" not in params.fields_set()


def test_a_retired_field_that_asks_for_nothing_is_let_pass() -> None:
    assert SamplingParams(best_of=None, n=1) == SamplingParams(n=1)
    assert SamplingParams(best_of=None).fields_set() == SamplingParams().fields_set()
    with pytest.raises(UnknownParamError, match="best_of"):
        SamplingParams(best_of=2)  # type: ignore[arg-type]
