"""langchain-tests' standard suites for chat models: on the bundled model, in process and over HTTP.

What the suites leave out needs the internet: tests of images, sound and PDFs fetch them from there (and the
bundled model reads text alone). Four tests ask for more than a model of four million parameters knows: to
copy a number past a schema full of other numbers, Chinese and Japanese, and to take the keys of an object
from a prompt. There the same engine runs a script in place of the weights; all else is the real thing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_quire import ChatVLLM
from quire.engine.engine import Engine
from quire.testing import Answer, Call, ScriptedEngine
from served_engine import served_engine

NAME, ALIAS = "quire-mini", "chat"
PATH = ("langchain_quire", "chat_models", "ChatVLLM")

SCRIPT = [
    Answer(when="magic_function(3)", calls=[Call("magic_function", {"input": 3})]),
    Answer(
        when="你好啊集团",
        calls=[
            Call("unicode_customer", {"customer_name": "你好啊集团", "description": "技术公司"})
        ],
    ),
    Answer(
        when="こんにちは株式会社",
        calls=[
            Call("unicode_customer", {"customer_name": "こんにちは株式会社", "description": "会社"})
        ],
    ),
    Answer('{"setup": "What do cats read?", "punchline": "The mewspaper."}', when="keys"),
]
BEYOND_THE_BUNDLED_MODEL = {
    "test_tool_calling",
    "test_tool_calling_async",
    "test_unicode_tool_call_integration",
    "test_json_mode",
}


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatVLLM]:
        return ChatVLLM

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        where = {"base_url": "http://gpu-box:8000/v1"}
        return {"QUIRE_API_KEY": "key"}, where, {**where, "api_key": "key"}

    @pytest.fixture(autouse=True)
    def _known_to_langchain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """langchain-core's "all" classes are those of its own repository; others are allowed by class."""
        load = sys.modules["langchain_core.load.load"]  # its package has a function of that name
        monkeypatch.setattr(load, "_get_default_allowed_class_paths", lambda _: {PATH})


@pytest.mark.filterwarnings(
    "ignore:Benchmark fixture was not used"
)  # nothing is recorded to be timed
class Standard(ChatModelIntegrationTests):
    """What both places have in common; they differ in `place`."""

    place: dict[str, Any]

    @property
    def chat_model_class(self) -> type[ChatVLLM]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # One call at a time is what the suite expects, and small models do better so.
        return {
            "temperature": 0,
            "max_tokens": 256,
            "model_kwargs": {"parallel_tool_calls": False},
            **self.place,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return NAME

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @pytest.fixture
    def vcr_config(self) -> dict[str, Any]:
        return {"ignore_localhost": True}  # nothing is recorded: the server is here


class TestInProcess(Standard):
    @pytest.fixture(autouse=True)
    def _place(self, request: pytest.FixtureRequest, engine: Engine, scripted: Engine) -> None:
        beyond = request.node.originalname in BEYOND_THE_BUNDLED_MODEL
        self.place = {"model": ALIAS, "engine": scripted if beyond else engine}


class TestRemote(Standard):
    @pytest.fixture(autouse=True)
    def _place(self, request: pytest.FixtureRequest, url: str, scripted_url: str) -> None:
        beyond = request.node.originalname in BEYOND_THE_BUNDLED_MODEL
        self.place = {"model": ALIAS, "base_url": scripted_url if beyond else url}


@pytest.fixture(scope="module")
def scripted() -> Iterator[Engine]:
    with ScriptedEngine(SCRIPT) as engine:
        yield engine


@pytest.fixture(scope="module")
def scripted_url(scripted: Engine) -> Iterator[str]:
    with served_engine(scripted, NAME, ALIAS) as url:
        yield url
