"""Where models are found, what their configs say, and the errors where they are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from quire.config import EngineConfig
from quire.errors import ConfigError, ModelNotFoundError, UnsupportedModelError
from quire.hub import bundled_model, cached_models, fetch_weights, find_model
from quire.hub.download import weights_of
from quire.models.registry import is_native
from tiny_models import BOS, EOS, VOCAB_SIZE, make_checkpoint


def find(model=None, **options):
    return find_model(EngineConfig(model=None if model is None else str(model), **options))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("saved"), "llama")


@pytest.fixture
def folder(tmp_path):
    """A folder with nothing but a config.json."""
    settings = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "eos_token_id": 7}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


def write_generation(folder, **settings):
    (folder / "generation_config.json").write_text(json.dumps(settings))


def test_a_folder(saved):
    found = find(saved)
    assert (found.folder, found.name, found.commit) == (saved, str(saved), None)
    assert found.hf_config.vocab_size == VOCAB_SIZE
    assert found.eos_token_ids == {EOS}
    assert found.sampling_defaults == {}


def test_no_model_named_is_the_bundled_one():
    found = find()
    assert found.folder == bundled_model()
    assert found.hf_config.architectures == ["LlamaForCausalLM"]
    assert found.eos_token_ids


def test_an_empty_name_is_not_the_bundled_one():
    with pytest.raises(ModelNotFoundError, match="name is empty"):
        find("")


def test_the_bundled_folder_is_known_without_torch_and_transformers():
    code = (
        "import sys, quire, quire.models.registry; assert quire.bundled_model().is_dir(); "
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_tokenizer_beside_a_tiny_model_is_one_token_a_byte(saved):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(saved)
    ids = tokenizer("Grüße 🙂").input_ids
    assert len(ids) == len("Grüße 🙂".encode())
    assert tokenizer.decode(ids) == "Grüße 🙂"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (BOS, EOS)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<user>hi\n<assistant>"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_path_to_nothing(name):
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        find(name)


def test_a_file_is_no_folder(saved):
    with pytest.raises(ModelNotFoundError, match="is a file; name the folder"):
        find(saved / "model.safetensors")


def test_a_folder_without_config(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        find(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_an_unreadable_folder(folder):
    folder.chmod(0)
    try:
        with pytest.raises(ModelNotFoundError, match="permissions"):
            find(folder)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("content", ["{", "[1]", b"\xff\xfe"])
def test_a_config_that_is_no_json_object(tmp_path, content):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        find(tmp_path)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"model_type": "lama"}, "'lama'.*did you mean 'llama'"),
        ({}, "model_type ''"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}, "trust_remote_code=True"),
        ({"model_type": "llama", "hidden_size": "big"}, "hidden_size"),
        ({"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}, "multiple"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "linear"}}, "factor"),
    ],
)
def test_a_config_that_describes_no_model(tmp_path, settings, message):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UnsupportedModelError, match=message):
        find(tmp_path)


def test_code_of_a_checkpoint_runs_only_when_it_is_trusted(tmp_path):
    (tmp_path / "configuration_own.py").write_text(
        "from transformers import PretrainedConfig\n"
        "class OwnConfig(PretrainedConfig):\n    model_type = 'own'\n"
    )
    settings = {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (tmp_path / "config.json").write_text(json.dumps({**settings, "size": {"a": 1, "b": 2}}))
    with pytest.raises(UnsupportedModelError, match="trust_remote_code"):
        find(tmp_path)
    found = find(tmp_path, trust_remote_code=True, hf_overrides={"size": {"b": 3}})
    assert type(found.hf_config).__name__ == "OwnConfig"
    assert found.hf_config.size == {"a": 1, "b": 3}


def test_overrides_reach_into_objects_and_what_follows_from_them(folder):
    settings = json.loads((folder / "config.json").read_text())
    settings["rope_scaling"] = {"rope_type": "linear", "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(settings))
    overrides = {"rope_scaling": {"factor": 4.0}, "hidden_size": 64, "num_attention_heads": 4}
    found = find(folder, hf_overrides=overrides).hf_config
    assert found.rope_parameters["factor"] == 4.0
    assert found.rope_parameters["rope_type"] == "linear"
    assert found.head_dim == 16


def test_sampling_defaults_come_under_our_names(folder):
    write_generation(
        folder, temperature=0.6, top_k=20, max_new_tokens=99, eos_token_id=[3, 5], do_sample=True
    )
    found = find(folder)
    assert found.sampling_defaults == {"temperature": 0.6, "top_k": 20, "max_tokens": 99}
    assert found.eos_token_ids == {3, 5}


def test_the_end_of_sequence_is_the_configs_where_generation_names_none(folder):
    write_generation(folder, temperature=0.6)
    assert find(folder).eos_token_ids == {7}
    write_generation(folder, eos_token_id=0)
    assert find(folder).eos_token_ids == {0}


def test_generation_config_vllm_leaves_defaults_out_but_not_ends(folder):
    write_generation(folder, temperature=0.6, eos_token_id=[3, 5])
    found = find(folder, generation_config="vllm")
    assert found.sampling_defaults == {} and found.eos_token_ids == {3, 5}
    found = find(folder, generation_config="vllm", override_generation_config={"top_p": 0.5})
    assert found.sampling_defaults == {"top_p": 0.5}


def test_generation_config_of_another_folder(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(ConfigError, match=r"generation_config\.json does not exist"):
        find(folder, generation_config=str(other))
    write_generation(other, top_p=0.3)
    assert find(folder, generation_config=str(other)).sampling_defaults == {"top_p": 0.3}


def test_overridden_generation_config(folder):
    write_generation(folder, temperature=0.6, top_p=0.9)
    found = find(
        folder, override_generation_config={"temperature": 0.1, "top_p": None, "eos_token_id": 1}
    )
    assert found.sampling_defaults == {"temperature": 0.1} and found.eos_token_ids == {1}


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"top_p": 7}, "top_p must be between 0 and 1"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id"),
    ],
)
def test_generation_settings_that_cannot_be(folder, overrides, message):
    with pytest.raises(ConfigError, match=message):
        find(folder, override_generation_config=overrides)


class Hub:
    """Stands in for huggingface_hub: answers with an error, or with files of a commit."""

    commit = "c0ffee" + "0" * 34

    def __init__(self, monkeypatch, cache, error=None):
        self.cache, self.error, self.downloads = cache, error, []
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.download)

    def model_info(self, repository, *, revision, timeout):
        assert timeout <= 30
        if self.error is not None:
            raise self.error
        names = ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin",
                 "README.md", "modeling_x.py", "onnx/model.safetensors")  # fmt: skip
        return SimpleNamespace(
            sha=self.commit, siblings=[SimpleNamespace(rfilename=name) for name in names]
        )

    def download(self, repository, *, revision, cache_dir, local_files_only=False, **options):
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not in the cache")
        self.downloads.append((revision, options["allow_patterns"], cache_dir))
        return str(self.cache)


def test_every_file_from_the_hub_is_of_one_commit_and_weights_come_later(monkeypatch, folder):
    hub = Hub(monkeypatch, folder)
    config = EngineConfig(model="owner/name", revision="main", download_dir="/somewhere")
    found = find_model(config)
    assert found.commit == hub.commit and found.folder == folder
    assert hub.downloads == [(hub.commit, ["config.json", "tokenizer.json"], "/somewhere")]
    fetch_weights(found, config)
    assert hub.downloads[1:] == [(hub.commit, ["model.safetensors"], "/somewhere")]
    find("owner/name", trust_remote_code=True)
    assert "modeling_x.py" in hub.downloads[-1][1]


def test_weights_of_a_repository():
    both = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
    assert weights_of(both, "auto") == weights_of(both, "safetensors") == both[:2]
    assert weights_of(both, "pt") == ["pytorch_model.bin"]
    assert weights_of(["pytorch_model.bin", "consolidated.safetensors"], "auto") == [
        "pytorch_model.bin"
    ]


def response_error(kind):
    import httpx2

    request = httpx2.Request("GET", "https://huggingface.co/api")
    return kind("refused", response=httpx2.Response(401, request=request))


@pytest.mark.parametrize(
    "kind, message",
    [
        (errors.RepositoryNotFoundError, "no folder and no repository.*check the spelling"),
        (errors.GatedRepoError, "is gated: accept its terms.*HF_TOKEN"),
        (errors.RevisionNotFoundError, "no revision 'v9'"),
    ],
)
def test_answers_of_the_hub(monkeypatch, tmp_path, kind, message):
    Hub(monkeypatch, tmp_path, response_error(kind))
    with pytest.raises(ModelNotFoundError, match=message):
        find("owner/name", revision="v9")


def test_a_name_that_no_repository_can_have():
    with pytest.raises(ModelNotFoundError, match="no name that a repository can have"):
        find("a b/c")


def test_without_network_the_answer_is_an_error_at_once(monkeypatch, tmp_path):
    Hub(monkeypatch, tmp_path, OSError("Name or service not known"))
    with pytest.raises(ModelNotFoundError, match=r"cache does not hold it.*Name or service"):
        find("owner/name")


@pytest.fixture
def cache(tmp_path, folder):
    """A Hugging Face cache that holds owner/name at one commit, and a tokenizer's repository."""
    cache = tmp_path / "cache"
    for name, file in (("owner--name", "config.json"), ("owner--tokenizer", "tokenizer.json")):
        snapshot = cache / f"models--{name}" / "snapshots" / Hub.commit
        snapshot.mkdir(parents=True)
        (snapshot / file).write_bytes((folder / "config.json").read_bytes())
        references = cache / f"models--{name}" / "refs"
        references.mkdir()
        (references / "main").write_text(Hub.commit)
    return cache


def test_offline_the_cache_serves(monkeypatch, cache):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = find("owner/name", download_dir=str(cache))
    assert found.commit == Hub.commit
    assert found.folder == cache / "models--owner--name" / "snapshots" / Hub.commit
    started = time.monotonic()
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE is set"):
        find("owner/other", download_dir=str(cache))
    assert time.monotonic() - started < 5


def test_models_in_the_cache(cache, tmp_path):
    (found,) = cached_models(str(cache))
    assert (found.name, found.architecture) == ("owner/name", "LlamaForCausalLM")
    assert found.size > 0 and (found.folder / "config.json").is_file()
    assert is_native(found.architecture) and not is_native(None)
    assert cached_models(str(tmp_path / "nowhere")) == []
