"""Flags made from fields: every field's type has a spelling, misspelt flags get a suggestion."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from quire.cli.flags import Flags, Parser, json_object, token_ids, whole_number
from quire.config import EngineConfig
from quire.sampling_params import SamplingParams

ENGINE = Flags(EngineConfig, "engine", leave_out=("seed",))
SAMPLING = Flags(SamplingParams, "sampling", leave_out=("output_kind",))


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="quire test", usage="", description="For tests.")
    parser.add_argument("prompts", nargs="*")
    ENGINE.add_to(parser)
    SAMPLING.add_to(parser)
    return parser


@pytest.mark.parametrize("cls", [EngineConfig, SamplingParams])
def test_every_field_has_a_flag_with_a_help_text(cls: type) -> None:
    parser = Parser(prog="quire test", usage="", description="For tests.")
    Flags(cls, "all", leave_out=("output_kind",)).add_to(parser)
    actions = {action.dest: action for action in parser._actions}
    for field in dataclasses.fields(cls):
        if field.name != "output_kind":
            assert (actions[field.name].help or "").strip(" ()"), field.name
    parser.format_help()  # a stray % in a text would raise


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-tokens", "20"], {"max_tokens": 20}),
        (["--max-tokens", "none"], {"max_tokens": None}),
        (["--max-model-len", "4k"], {"max_model_len": 4000}),
        (["--max-model-len=4K"], {"max_model_len": 4096}),
        (["--temperature", "0.5", "--top-k", "-1"], {"temperature": 0.5, "top_k": -1}),
        (["--enable-prefix-caching"], {"enable_prefix_caching": True}),
        (["--no-enable-prefix-caching"], {"enable_prefix_caching": False}),
        (["--ignore-eos"], {"ignore_eos": True}),
        (["--model", "none"], {"model": "none"}),
        (["--stop", "a", "--stop", "b c"], {"stop": ["a", "b c"]}),
        (["--bad-words", "x"], {"bad_words": ["x"]}),
        (["--stop-token-ids", "1,2"], {"stop_token_ids": [1, 2]}),
        (["--allowed-token-ids", "[1, 2]"], {"allowed_token_ids": [1, 2]}),
        (["--logit-bias", '{"7": -3}'], {"logit_bias": {"7": -3}}),
        (["--hf-overrides", '{"a": {"b": 1}}'], {"hf_overrides": {"a": {"b": 1}}}),
        (["--dtype", "float32"], {"dtype": "float32"}),
        ([], {}),
    ],
)
def test_values(parser: Parser, arguments: list[str], expected: dict[str, Any]) -> None:
    given = parser.parse(arguments)
    assert {**ENGINE.read(given), **SAMPLING.read(given)} == expected


def test_what_the_flags_give_makes_the_dataclasses(parser: Parser) -> None:
    given = parser.parse(["--hf-overrides", "{}", "--logit-bias", '{"7": -3}', "--stop", "x"])
    config = EngineConfig(**ENGINE.read(given))
    params = SamplingParams(**SAMPLING.read(given))
    assert isinstance(config.hf_overrides, Mapping)
    assert params.logit_bias == {7: -3.0}
    assert params.fields_set() == {"logit_bias", "stop"}


def test_a_commands_own_defaults() -> None:
    parser = Parser(prog="quire test", usage="", description="For tests.")
    flags = Flags(SamplingParams, "sampling", ("output_kind", "seed"), {"max_tokens": 128})
    flags.add_to(parser)
    parser.add_argument("--seed", type=int)
    assert "(default: 128)" in parser.format_help()
    assert flags.read(parser.parse(["--seed", "3"])) == {"max_tokens": 128}
    assert flags.read(parser.parse(["--max-tokens", "4"])) == {"max_tokens": 4}


def test_prompts_and_flags_in_any_order(parser: Parser) -> None:
    given = parser.parse(["one", "--top-k", "5", "two", "--ignore-eos", "-"])
    assert given.prompts == ["one", "two", "-"]
    given = parser.parse(["one", "--top-k", "5", "--", "--not-a-flag"], positionals="prompts")
    assert given.prompts == ["one", "--not-a-flag"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--temprature", "0.5", "hi"],
            "unknown flag '--temprature'; did you mean '--temperature'?",
        ),
        (["--temp", "0.5"], "unknown flag '--temp'"),
        (["--max-tokens", "4.5"], "'4.5' is not a whole number such as 4096, 4k or 4K"),
        (["--max-tokens", "4x"], "'4x' is not a whole number"),
        (["--logit-bias", "[1]"], "is not a JSON object"),
        (["--logit-bias", "{"], "is not JSON"),
        (["--stop-token-ids", "1;2"], "are not token ids"),
        (["--temperature", "warm"], "argument --temperature: invalid float value: 'warm'"),
    ],
)
def test_errors_in_one_line(
    parser: Parser, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        parser.parse(arguments)
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert message in error
    assert error.startswith("quire test: error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("1k", 1000), ("1K", 1024), ("1.5k", 1500), ("2M", 2 * 1024**2), ("1_000", 1000),
     ("-1", -1), ("1g", 10**9), ("3T", 3 * 1024**4)],
)  # fmt: skip
def test_whole_number(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["", "k", "1.0001k", "inf", "nan", "1kk", "1e400000", "9" * 5000])
def test_not_a_whole_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        whole_number(text)


def test_readers_alone() -> None:
    assert token_ids("5") == [5]
    assert json_object('{"a": 1}') == {"a": 1}
