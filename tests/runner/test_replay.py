"""Steps from a record give what the model gives, and are used where they can be."""

from __future__ import annotations

import pytest

from quire import LLM, SamplingParams
from quire_kernels import dispatch
from tiny_models import make_checkpoint

pytestmark = pytest.mark.skipif(
    dispatch.recorder("cpu") is None, reason="operations of this device are not recorded"
)


@pytest.fixture
def runs(monkeypatch):
    """How often a record was run."""
    counts = []
    program = dispatch.recorder("cpu").Program
    run = program.run
    monkeypatch.setattr(program, "run", lambda self: (counts.append(1), run(self)))
    return counts


def generate(folder, **options):
    prompts = [{"prompt_token_ids": list(range(2, 2 + n))} for n in (3, 9, 20, 1, 7)]
    params = [
        SamplingParams(temperature=t, seed=i, max_tokens=4 + 3 * i, ignore_eos=True, logprobs=2)
        for i, t in enumerate((0, 1.0, 0, 0.7, 0))
    ]
    with LLM(folder, max_model_len=64, block_size=4, **options) as llm:
        outputs = llm.generate(prompts, params, use_tqdm=False)
        again = llm.generate(prompts[:2], params[:2], use_tqdm=False)
    return [(output.outputs[0].token_ids, output.outputs[0].logprobs) for output in outputs + again]


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "mistral", "phi3"])
@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"quantization": "int8"}])
def test_a_record_changes_nothing(tmp_path, runs, model_type, options):
    folder = make_checkpoint(tmp_path, model_type)
    replayed = generate(folder, **options)
    assert len(runs) > 8  # one row of each of five numbers of rows, at least
    before = len(runs)
    assert generate(folder, enforce_eager=True, **options) == replayed
    assert len(runs) == before


def test_a_model_that_computes_by_torch_is_run_as_ever(tmp_path, runs):
    generate(make_checkpoint(tmp_path, "gpt2"))
    assert not runs
