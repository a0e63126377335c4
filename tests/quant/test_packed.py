"""Models with packed weights: the same weights in another form, and no second copy of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quire.config import EngineConfig
from quire.hub import find_model
from quire.models.base import CausalLM
from quire.models.loader import load_model
from quire.quant import Weight
from quire.quant.packed import PackedWeight
from quire_kernels import dispatch
from tiny_models import ARCHITECTURES, make_checkpoint

pytestmark = pytest.mark.skipif(
    not dispatch.multiplies_packed("cpu"), reason="needs the compiled kernels"
)


def load(folder: Path, **options: object) -> CausalLM:
    config = EngineConfig.from_options(model=str(folder), device="cpu", **options)
    return load_model(find_model(config), config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_are_the_checkpoints(name: str, dtype: str, tmp_path: Path) -> None:
    """Merged, tied and transposed ones too; told apart by the shares of numbers that they hold."""
    folder = make_checkpoint(tmp_path, name)
    stored = load_file(folder / "model.safetensors")
    model = load(folder, dtype=dtype)
    packed = [p for p in model.parameters() if isinstance(p, PackedWeight)]
    assert packed
    found = torch.cat([weight.plain().flatten() for weight in packed]).sort().values
    matrices = [tensor for tensor in stored.values() if tensor.dim() == 2]
    expected = torch.cat([tensor.flatten() for tensor in matrices]).to(found.dtype).sort().values
    unpacked = [
        p.plain().flatten()
        for p in model.parameters()
        # Tables that nothing is multiplied by.
        if isinstance(p, Weight) and not isinstance(p, PackedWeight) and p.dim() == 2
    ]
    assert torch.equal(torch.cat([found, *unpacked]).sort().values, expected)


def test_a_tied_table_exists_once(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, "llama", tie_word_embeddings=True))
    weight = model.lm_head.weight
    assert isinstance(weight, PackedWeight) and model.model.embed_tokens.weight is weight
    ids = torch.tensor([3, 3, 271])
    assert torch.equal(model.model.embed_tokens(ids), weight.plain()[ids])


@pytest.mark.skipif(not dispatch.squeezes("cpu"), reason="needs AVX-512 with bfloat16")
def test_weights_that_cannot_be_squeezed_are_packed(tmp_path: Path) -> None:
    """Numbers of all sizes in one of a merged projection's parts, after another that was squeezed."""
    plain = torch.randn(96, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    plain[48:] *= 2.0 ** torch.arange(-60, 4)
    parts = {"gate": slice(0, 48), "up": slice(48, 96)}
    weight = PackedWeight(torch.empty(96, 64), parts).made_on(torch.device("cpu"), plain.dtype)
    assert isinstance(weight, PackedWeight) and weight.squeezed
    weight.put_part("gate", plain[:48])
    assert weight.squeezed and weight.holds_part("gate", plain[:48])
    weight.put_part("up", plain[48:])
    assert not weight.squeezed and torch.equal(weight.plain(), plain)
    x = torch.randn(3, 64).bfloat16()
    assert torch.equal(weight.linear(x, None, torch.float32), dispatch.packed_linear(
        x, weight.data, 96, None, torch.float32
    ))  # fmt: skip
    torch.testing.assert_close(weight.linear(x, None, None), x @ plain.T, rtol=2e-2, atol=1e-3)


@pytest.mark.skipif(not dispatch.squeezes("cpu"), reason="needs AVX-512 with bfloat16")
def test_parts_of_broken_blocks_are_not_squeezed() -> None:
    weight = PackedWeight(torch.empty(40, 64), {"q": slice(0, 24), "k": slice(24, 40)})
    twin = weight.made_on(torch.device("cpu"), torch.bfloat16)
    assert isinstance(twin, PackedWeight) and not twin.squeezed


def test_logits_are_not_rounded_to_bfloat16(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, "llama"), dtype="bfloat16")
    with torch.inference_mode():
        logits = model.logits(torch.randn(4, 32, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


PEAK = """
import re, sys
from pathlib import Path
from quire.config import EngineConfig
from quire.hub import find_model
from quire.models.loader import load_model

quantization = sys.argv[2] if len(sys.argv) > 2 else None
config = EngineConfig(model=sys.argv[1], device="cpu", quantization=quantization)
checkpoint = find_model(config)
model = load_model(checkpoint, config)
# Not ru_maxrss, which begins with what the parent had.
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
print(sum(p.nbytes for p in model.parameters()), peak)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 440 MB in bfloat16, half of it one tied table."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=120_000, hidden_size=896, intermediate_size=4864, num_hidden_layers=8,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("large")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)
    model.save_pretrained(folder)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_loading_takes_little_more_memory_than_the_weights(
    large: Path, quantization: str | None
) -> None:
    """The limit of the whole process, libraries included, is 1.25 x weights + 300 MiB."""
    arguments = [str(large), *([quantization] if quantization else [])]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    weights, peak = map(int, done.stdout.split())
    stored = (large / "model.safetensors").stat().st_size
    share = 0.5 if quantization else 0.77 if dispatch.squeezes("cpu") else 1
    assert weights == pytest.approx(stored * share, rel=0.02)
    # While the table is read, its pages of the file are in memory beside it.
    assert peak <= 1.25 * stored + (300 << 20)
    assert peak <= weights + stored / 2 + (300 << 20)
