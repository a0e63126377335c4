"""Constructors: names, the environment, what pickles and serialised forms hold."""

from __future__ import annotations

import copy
import importlib
import pickle
from typing import Any

import pytest
from langchain_core.load import dumpd, dumps, load
from pydantic import SecretStr, ValidationError

import langchain_quire
from langchain_quire import VLLM, ChatVLLM, VLLMEmbeddings, VLLMRerank
from quire.engine.engine import Engine
from quire.errors import MissingDependencyError

CLASSES: list[type[Any]] = [ChatVLLM, VLLM, VLLMEmbeddings, VLLMRerank]
URL = "http://gpu-box:8000/v1"


@pytest.mark.parametrize("cls", CLASSES)
def test_unknown_options_are_refused_with_the_nearest(cls: type[Any]) -> None:
    with pytest.raises(
        ValidationError, match=r"no option 'max_retrys'; did you mean 'max_retries'"
    ):
        cls(max_retrys=1)
    with pytest.raises(ValidationError, match="did you mean 'max_model_len'"):
        cls(max_modell_len=1)
    with pytest.raises(ValidationError, match="max_model_len has no effect on a model behind"):
        cls(base_url=URL, max_model_len=64)


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_show_no_secrets(cls: type[Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        cls(api_key="hush", nonsense=1)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(cls(base_url=URL, api_key="hush"))


@pytest.mark.parametrize("cls", CLASSES)
def test_the_environment(cls: type[Any], monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setenv("QUIRE_BASE_URL", URL)
    monkeypatch.setenv("QUIRE_API_KEY", "key")
    one = cls()
    assert (one.base_url, one.api_key) == (URL, SecretStr("key"))
    assert cls(base_url="http://other/v1").base_url == "http://other/v1"
    assert cls(engine=engine).base_url is None, "an engine at hand goes before the environment"
    assert cls(max_model_len=64).base_url is None, "and so does one that is described"


@pytest.mark.parametrize("cls", CLASSES)
def test_nothing_is_loaded_by_construction(cls: type[Any]) -> None:
    cls(model="there/is-no-such-model")
    cls(model="m", base_url="http://there.is.no.such.host.invalid/v1")


def test_names_of_other_classes() -> None:
    chat = ChatVLLM(
        model_name="m",
        openai_api_base=URL,
        openai_api_key="k",
        request_timeout=3,
        stop_sequences=["x"],
    )
    assert (chat.model, chat.base_url, chat.timeout, chat.stop) == ("m", URL, 3, ["x"])
    with pytest.raises(ValidationError, match="another name of model"):
        ChatVLLM(model="m", model_name="n")


def test_options_of_engine_and_sampling_find_their_place() -> None:
    chat = ChatVLLM(max_model_len=64, bad_words=["x"], temperature=0.5)
    assert chat.engine_kwargs == {"max_model_len": 64}
    assert chat.model_kwargs == {"bad_words": ["x"]}
    assert VLLM(max_model_len=64, vllm_kwargs={"seed": 1}).vllm_kwargs == {
        "max_model_len": 64,
        "seed": 1,
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_pickles_hold_the_configuration_and_no_secret(
    cls: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cls(model="m", base_url=URL, api_key="hush", timeout=7)
    data = pickle.dumps(one)
    assert b"hush" not in data
    again = pickle.loads(data)
    assert (again.model, again.base_url, again.timeout, again.api_key) == ("m", URL, 7, None)
    monkeypatch.setenv("QUIRE_API_KEY", "other")
    assert pickle.loads(data).api_key == SecretStr("other")
    assert copy.deepcopy(one).api_key == SecretStr("hush")


def test_a_pickled_model_answers(url: str) -> None:
    chat = ChatVLLM(base_url=url, temperature=0, max_tokens=20)
    said = chat.invoke("What is the capital of France?").text
    assert pickle.loads(pickle.dumps(chat)).invoke("What is the capital of France?").text == said


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
@pytest.mark.parametrize("cls", [ChatVLLM, VLLM])
def test_serialised_forms_hold_no_secret(cls: type[Any], engine: Engine) -> None:
    one = cls(model="m", base_url=URL, api_key="hush", temperature=0.5)
    assert "hush" not in dumps(one)
    again: Any = load(
        dumpd(one),
        allowed_objects=[cls],
        valid_namespaces=["langchain_quire"],
        secrets_map={"QUIRE_API_KEY": "hush"},
    )
    assert again.model_dump() == one.model_dump() and again.api_key == one.api_key
    assert "engine" not in dumpd(cls(engine=engine))["kwargs"]


def test_without_langchain_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'quire\[langchain\]'"):
        importlib.reload(langchain_quire)
