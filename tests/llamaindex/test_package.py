"""The packages themselves: what they import, how they merge with llama-index-core, what they are built of."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import quire
from llama_index.embeddings.quire import VllmEmbedding
from llama_index.llms.quire import Vllm
from llama_index.postprocessor.quire import VllmRerank
from quire.errors import ConfigError, UnknownParamError, UnsupportedParamError

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "integrations/llamaindex"
PACKAGES = (
    "llama_index/llms/quire",
    "llama_index/embeddings/quire",
    "llama_index/postprocessor/quire",
)
SEAM = {"quire", "quire.api.client", "quire.config", "quire.errors", "quire.outputs"}
OTHERS = {"llama_index", "llama_index_instrumentation", "openai", "pydantic", "pydantic_core"}
BOTH = """
import llama_index.core, llama_index.llms.quire, llama_index.embeddings.quire, llama_index.postprocessor.quire
print(llama_index.llms.quire.__file__, llama_index.core.__file__, *sorted(
    name for name in ("torch", "transformers", "starlette") if name in __import__("sys").modules), sep="|")
"""


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0
            found.add(node.module)
    return found


def test_they_stand_on_the_connection_alone() -> None:
    for path in SOURCES.rglob("*.py"):
        for name in imports(path):
            top = name.partition(".")[0]
            known = name in SEAM if top == "quire" else top in OTHERS | set(sys.stdlib_module_names)
            assert known, f"{path.name} imports {name}"


def test_the_namespace_is_shared() -> None:
    """A regular package at any of these would hide llama-index-core, or be hidden by it."""
    inits = {path.parent.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("__init__.py")}
    assert inits == set(PACKAGES)
    assert not (SOURCES.parent / "__init__.py").exists()


def test_importing_loads_no_engine() -> None:
    done = subprocess.run([sys.executable, "-c", BOTH], capture_output=True, text=True, check=True)
    ours, core, *heavy = done.stdout.strip().split("|")
    assert "integrations/llamaindex" in Path(ours).as_posix()
    assert "site-packages" in core
    assert "torch" not in heavy and "starlette" not in heavy


@pytest.mark.slow
def test_they_come_with_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    for package in PACKAGES:
        assert {f"{package}/__init__.py", f"{package}/py.typed", f"{package}/base.py"} <= names
    assert not [
        name
        for name in names
        if name in ("llama_index/__init__.py", "llama_index/llms/__init__.py")
    ]
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": ""}
    command = [sys.executable, "-c", BOTH]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    ours, core, *_ = done.stdout.strip().split("|")
    assert Path(ours).is_relative_to(tmp_path)
    assert "site-packages" in core


def test_construction_loads_nothing() -> None:
    for made in (
        Vllm(model="no/such-model"),
        Vllm(model="no/such-model", base_url="http://127.0.0.1:9/v1"),
        VllmEmbedding(model="no/such-model"),
        VllmRerank(model="no/such-model", top_n=1),
    ):
        assert made.to_dict()["class_name"] == type(made).__name__


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIRE_BASE_URL", "http://gpu-box:8000")
    monkeypatch.setenv("QUIRE_API_KEY", "a-secret")
    for cls in (Vllm, VllmEmbedding, VllmRerank):
        connection = cls()._connection
        assert str(connection.sync.base_url) == "http://gpu-box:8000/v1/"
        assert connection.sync.api_key == "a-secret"
        assert cls(max_model_len=64)._connection.is_local


def test_every_argument_of_upstreams() -> None:
    llm = Vllm(
        "a/model", temperature=0.5, tensor_parallel_size=1, trust_remote_code=True, n=1, best_of=None,
        presence_penalty=0.1, frequency_penalty=0.2, top_p=0.9, top_k=-1, stop=["x"], ignore_eos=False,
        max_new_tokens=7, logprobs=1, dtype="float32", download_dir="here", api_url="",
        vllm_kwargs={"max_model_len": 64, "hf_token": "a-secret"}, callback_manager=None,
        system_prompt="s", messages_to_prompt=None, completion_to_prompt=None, output_parser=None,
        pydantic_program_mode="default", is_chat_model=True,
    )  # fmt: skip
    assert llm.vllm_kwargs == {"max_model_len": 64}
    assert "a-secret" not in llm.to_json()
    assert Vllm(max_model_len=64, vllm_kwargs={"seed": 3}).vllm_kwargs == {
        "max_model_len": 64,
        "seed": 3,
    }
    remote = Vllm(api_url="http://x/v1", api_headers={"a": "b"}, timeout=3, max_tokens=5)
    assert (remote.base_url, remote.timeout, remote.max_new_tokens) == ("http://x/v1", 3, 5)


def test_wrong_options_are_told() -> None:
    with pytest.raises(
        UnknownParamError, match="no option 'temprature'; did you mean 'temperature'"
    ):
        Vllm(temprature=1)
    with pytest.raises(UnsupportedParamError, match="n answers with logprobs"):
        Vllm(best_of=3)
    with pytest.raises(ConfigError, match="another name"):
        Vllm(max_tokens=3, max_new_tokens=4)
    with pytest.raises(UnknownParamError, match="max_model_len"):
        Vllm(vllm_kwargs={"max_model_length": 64})
    with pytest.raises(ConfigError, match="base_url"):
        Vllm(base_url="http://x/v1", dtype="float32")


def test_upstreams_own_class_runs_on_quire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module imports `vllm`, which is quire under that name."""
    monkeypatch.setitem(sys.modules, "vllm", quire)
    from llama_index.llms.vllm import Vllm as Upstreams

    llm = Upstreams(
        model=str(quire.bundled_model()),
        temperature=0,
        max_new_tokens=3,
        vllm_kwargs={"kv_cache_memory_bytes": 16 << 20},
        messages_to_prompt=lambda messages: f"The capital of {messages[-1].content} is",
    )
    assert llm.complete("The capital of France is").text == " Paris."
    from llama_index.core.llms import ChatMessage

    assert llm.chat([ChatMessage("France")]).message.content == " Paris."
    llm._client.close()
