"""`quire models` on an empty cache and on one with models that can and cannot be run."""

import json
from pathlib import Path

import pytest

from quire.cli import main

Capture = pytest.CaptureFixture[str]


def _cached(cache: Path, name: str, config: dict[str, object] | None) -> None:
    """Lay a repository into `cache` as huggingface_hub does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (repository / "blobs" / "weights").write_bytes(bytes(1_500_000))
    (snapshot / "model.safetensors").symlink_to(repository / "blobs" / "weights")
    if config is not None:
        (repository / "blobs" / "config").write_text(json.dumps(config))
        (snapshot / "config.json").symlink_to(repository / "blobs" / "config")


def test_empty_cache(tmp_path: Path, capsys: Capture) -> None:
    assert main(["models", "--download-dir", str(tmp_path / "none")]) == 0
    architectures, models = capsys.readouterr().out.split("\n\n")
    assert architectures.splitlines()[0] == "Architectures:"
    assert "  LlamaForCausalLM" in architectures.splitlines()
    [_, bundled] = models.splitlines()
    assert bundled.startswith("  quire-mini (bundled)  ")
    assert bundled.endswith(" MB  LlamaForCausalLM")


def test_cached_models(tmp_path: Path, capsys: Capture) -> None:
    _cached(tmp_path, "some/llama", {"architectures": ["LlamaForCausalLM"]})
    _cached(tmp_path, "some/t5", {"architectures": ["T5ForConditionalGeneration"]})
    _cached(tmp_path, "some/unnamed", {})
    _cached(tmp_path, "some/weights-alone", None)
    assert main(["models", "--download-dir", str(tmp_path)]) == 0
    listed = capsys.readouterr().out.partition("Models on this machine:\n")[2].splitlines()
    assert [line.split() for line in listed[1:]] == [
        ["some/llama", "1.5", "MB", "LlamaForCausalLM"],
        ["some/t5", "1.5", "MB", "T5ForConditionalGeneration", "(not", "supported)"],
        ["some/unnamed", "1.5", "MB", "unknown", "architecture", "(not", "supported)"],
    ]
