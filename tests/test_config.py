"""`EngineConfig`: what it takes, and what it says of what it does not take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from quire.config import ELSEWHERE, EngineConfig
from quire.errors import ConfigError, UnknownParamError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu_memory_utilization": "0.5"}, "gpu_memory_utilization must be a number; got '0.5'"),
        ({"gpu_memory_utilization": 0}, r"gpu_memory_utilization must be in \(0, 1\]; got 0"),
        ({"hf_overrides": 5}, "hf_overrides must be a dict; got 5"),
        ({"seed": None}, "seed must be a whole number; got None"),
        ({"seed": True}, "seed must be a whole number; got True"),
        ({"trust_remote_code": "no"}, "trust_remote_code must be True or False; got 'no'"),
        ({"enable_prefix_caching": 1}, "enable_prefix_caching must be True or False; got 1"),
        ({"block_size": "16"}, "block_size must be a whole number; got '16'"),
        ({"block_size": 0}, "block_size must be a whole number above 0; got 0"),
        ({"max_model_len": 2.5}, "max_model_len must be a whole number; got 2.5"),
        ({"max_logprobs": None}, "max_logprobs must be a whole number; got None"),
        ({"revision": 7}, "revision must be text; got 7"),
        ({"dtype": "int8"}, "dtype must be one of auto, bfloat16, float16, float32; got 'int8'"),
        ({"dtype": None}, "dtype must be one of .*; got 'None'"),
    ],
)
def test_a_value_that_an_option_cannot_have(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        EngineConfig.from_options(**options)
    assert [caught.value.param] == list(options)


def test_values_that_options_can_have() -> None:
    config = EngineConfig.from_options(
        model="x", tokenizer=Path("y"), gpu_memory_utilization=1, hf_overrides={"a": 1}
    )
    assert config.tokenizer == Path("y")
    assert EngineConfig.from_options(dtype="half").dtype == "float16"


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownParamError, match="did you mean 'gpu_memory_utilization'"):
        EngineConfig.from_options(gpu_memory_utilisation=0.5)


def test_options_of_vllm_that_are_not_here_are_explained() -> None:
    assert not set(ELSEWHERE) & {field.name for field in dataclasses.fields(EngineConfig)}
    with pytest.raises(UnknownParamError, match="always computed in chunks"):
        EngineConfig.from_options(enable_chunked_prefill=True)
