"""`LLM.beam_search` finds what transformers' beam search finds, ends of sequence included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quire import LLM, BeamSearchParams
from tiny_models import make_checkpoint

# So few tokens that many beams end, and that a wide search holds every sequence there is.
VOCAB, BOS, EOS, PAD = 12, 0, 1, 2
PROMPTS = [[3, 4, 5], [6] * 7, [7]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = []
    for seed in range(4):
        folder = make_checkpoint(
            tmp_path_factory.mktemp("beam"),
            "llama",
            seed=seed,
            vocab_size=VOCAB,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
        (folder / "generation_config.json").unlink()  # it names ends of another vocabulary
        made.append(folder)
    return made


def make_llm(folder: Path, **options: Any) -> LLM:
    return LLM(
        str(folder),
        dtype="float32",
        skip_tokenizer_init=True,
        **{"max_model_len": 32, "num_gpu_blocks_override": 64, **options},
    )


def search_of_transformers(model: Any, prompt: list[int], **options: Any) -> list[list[int]]:
    with torch.no_grad():
        sequences = model.generate(
            torch.tensor([prompt]),
            num_return_sequences=options["num_beams"],
            do_sample=False,
            eos_token_id=options.pop("ends"),
            pad_token_id=PAD,
            early_stopping="never",
            **options,
        ).tolist()
    return [sequence[len(prompt) :] for sequence in sequences]


@pytest.mark.parametrize(
    ("width", "length_penalty", "max_tokens", "ends"),
    [(2, 1.0, 8, [EOS]), (4, 0.0, 8, [EOS]), (3, 2.0, 10, [EOS]), (3, -1.0, 8, [EOS]),
     (3, 1.0, 6, [EOS, 4, 8, 9])],
)  # fmt: skip
def test_beams_equal_transformers(
    folders: list[Path], width: int, length_penalty: float, max_tokens: int, ends: list[int]
) -> None:
    from transformers import AutoModelForCausalLM

    ended = 0
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        params = BeamSearchParams(
            beam_width=width, max_tokens=max_tokens, length_penalty=length_penalty
        )
        with make_llm(folder, hf_overrides={"eos_token_id": ends}) as llm:
            outputs = llm.beam_search(PROMPTS, params)
        for prompt, output in zip(PROMPTS, outputs, strict=True):
            expected = search_of_transformers(
                model,
                prompt,
                num_beams=width,
                max_new_tokens=max_tokens,
                length_penalty=length_penalty,
                ends=ends,
            )
            got = [beam.tokens[len(prompt) :] for beam in output.sequences]
            assert got == [tokens[: len(own)] for tokens, own in zip(expected, got, strict=True)]
            ended += sum(beam.finish_reason == "stop" for beam in output.sequences)
    assert ended


def test_a_search_wider_than_the_vocabulary(folders: list[Path]) -> None:
    with make_llm(folders[0]) as llm:
        [output] = llm.beam_search([[3]], BeamSearchParams(beam_width=100, max_tokens=2))
    # One token that ends, or one that does not and any other.
    assert {tuple(beam.tokens) for beam in output.sequences} <= {
        (3, EOS),
        *((3, first, second) for first in range(VOCAB) for second in range(VOCAB)),
    }
    assert len(output.sequences) == 100


def test_a_search_ends_with_the_context(folders: list[Path]) -> None:
    with make_llm(folders[0], max_model_len=8) as llm:
        [output] = llm.beam_search(
            [[3] * 5], BeamSearchParams(beam_width=2, max_tokens=30, ignore_eos=True)
        )
    assert [(len(beam.tokens), beam.finish_reason) for beam in output.sequences] == [
        (8, "length")
    ] * 2
