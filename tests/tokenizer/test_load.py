"""Loading from folders, and what is said when it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from transformers import ByT5Tokenizer

import tiny_tokenizers
from quire.errors import ConfigError, MissingDependencyError, ModelError, ModelNotFoundError
from quire.tokenizer import Tokenizer


@pytest.mark.parametrize("kind", ["byte_level", "llama2", "unigram"])
def test_a_saved_tokenizer_is_the_same(kind: str, tmp_path: Path) -> None:
    hf = tiny_tokenizers.KINDS[kind]()
    hf.save_pretrained(tmp_path)
    tok = Tokenizer.load(tmp_path)
    text = "Hello, the world 👋 日本"
    assert tok.is_fast
    assert tok.encode(text) == hf.encode(text)
    assert tok.special_ids == frozenset(hf.all_special_ids)
    assert tok.render_chat([{"role": "user", "content": "x"}]) == "<s><|user|>x</s><|assistant|>"


@pytest.mark.parametrize("mode", ["auto", "slow"])
def test_a_slow_tokenizer(mode: str, tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path)
    tok = Tokenizer.load(str(tmp_path), mode=mode)
    assert not tok.is_fast
    assert tok.decode(tok.encode("Füße 👋")) == "Füße 👋"


def test_slow_where_there_is_only_a_fast_one(tmp_path: Path) -> None:
    tiny_tokenizers.byte_level().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no Python version of"):
        Tokenizer.load(tmp_path, mode="slow")
    with pytest.raises(ConfigError, match="must be auto or slow"):
        Tokenizer.load(tmp_path, mode="mistral")


@pytest.fixture
def remote_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the slow tokenizer and its code; transformers' copy of the code stays in tmp_path."""
    folder = tmp_path / "model"
    tiny_tokenizers.slow().save_pretrained(folder)
    code = Path(tiny_tokenizers.__file__).read_text()
    (folder / "tokenization_tiny.py").write_text(code)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["tokenization_tiny.SlowTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def test_code_of_the_repository_runs_only_if_trusted(remote_code: Path) -> None:
    with pytest.raises(ModelError, match="set trust_remote_code=True"):
        Tokenizer.load(remote_code)
    tok = Tokenizer.load(remote_code, trust_remote_code=True)
    text = "the 👋<tool>"
    assert not tok.is_fast
    assert tok.encode(text) == tiny_tokenizers.slow().encode(text)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no tokenizer folder"):
        Tokenizer.load(tmp_path / "absent")
    with pytest.raises(ModelNotFoundError, match="no tokenizer folder"):
        Tokenizer.load("./absent")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer in folder.*skip_tokenizer_init"):
        Tokenizer.load(tmp_path)


def test_no_such_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("nobody/nothing is not a repository\nlong explanation")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(
        ModelNotFoundError, match=r"on the hub: nobody/nothing is not a repository$"
    ):
        Tokenizer.load("nobody/nothing")


def test_an_empty_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(ModelError, match="has no vocabulary"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("broken", ["tokenizer.json", "tokenizer_config.json"])
def test_unreadable(broken: str, tmp_path: Path) -> None:
    tiny_tokenizers.byte_level().save_pretrained(tmp_path)
    (tmp_path / broken).write_text('{"version": ')
    with pytest.raises(ModelError, match="cannot be read") as raised:
        Tokenizer.load(tmp_path)
    assert not isinstance(raised.value, ModelNotFoundError)


def test_a_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("pip install sentencepiece")

    tiny_tokenizers.byte_level().save_pretrained(tmp_path)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(MissingDependencyError, match="pip install sentencepiece"):
        Tokenizer.load(tmp_path)


def test_chat_template_from_a_file(tmp_path: Path) -> None:
    hf = tiny_tokenizers.byte_level(chat_template=None)
    hf.save_pretrained(tmp_path)
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    tok = Tokenizer.load(tmp_path, chat_template=str(file))
    assert tok.render_chat([{"role": "user", "content": "x"}]) == "[x]"
    with pytest.raises(ConfigError, match=r"absent\.jinja"):
        Tokenizer.load(tmp_path, chat_template="absent.jinja")
