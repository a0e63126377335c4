"""The bundled model: its data is reproducible and parted, its files fit, its weights do the tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "inference/quire/assets/quire-mini"
sys.path.insert(0, str(ROOT / "tools/bundled_model"))

import batches  # noqa: E402
import facts  # noqa: E402
import tokenizer  # noqa: E402
import words  # noqa: E402
from dialogue import segments  # noqa: E402
from world import World, is_held_out  # noqa: E402


def _text(task: str, world: World) -> str:
    return "".join(part for part, _ in segments(tokenizer.TASKS[task].generate(world)))


@pytest.mark.parametrize("task", sorted(tokenizer.TASKS))
def test_one_seed_gives_one_example(task: str) -> None:
    first = [_text(task, World(seed)) for seed in range(30)]
    assert first == [_text(task, World(seed)) for seed in range(30)]
    assert len(set(first)) > 25


def test_names_fall_on_one_side_only() -> None:
    for world in (World(1), World(-1, held=True)):
        made = [world.made_up() for _ in range(500)]
        assert all(is_held_out(name) == world.held for name in made)
        people = [world.person() for _ in range(500)]
        pairs = [p for p in people if set(p.split()) <= {*words.FIRST, *words.LAST} and " " in p]
        assert pairs
        assert all(is_held_out(name) == world.held for name in pairs)


@pytest.mark.parametrize("task", ["qa", "tools", "json"])
def test_held_out_dialogues_never_stand_in_training(task: str) -> None:
    trained = {_text(task, World(seed)) for seed in range(1000)}
    held = ["".join(p for p, _ in segments(e)) for e in batches.held_out(task, 200)]
    assert not trained & set(held)


def test_held_out_phrasings_never_stand_in_training() -> None:
    world = World(5)
    asked = " | ".join(facts.exchange(world)[0] for _ in range(5000))
    for kind, ask, _ in facts.held_out():
        if kind in ("capital", "country", "definition"):
            assert ask not in asked


def test_the_files_are_small_enough() -> None:
    config = json.loads((ASSETS / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["vocab_size"] <= 4096
    size = (ASSETS / "model.safetensors").stat().st_size
    assert 2 * 2e6 <= size <= 12e6


def test_template_and_segments_agree() -> None:
    transformers = pytest.importorskip("transformers")
    tok = transformers.AutoTokenizer.from_pretrained(ASSETS)
    for task in tokenizer.TASKS:
        for seed in range(25):
            example = tokenizer.TASKS[task].generate(World(seed))
            if example.text:
                continue
            parts = [part for part, _ in segments(example)]
            text = tok.apply_chat_template(
                example.messages, tools=example.tools or None, tokenize=False
            )
            assert text == "".join(parts)
            ids = tok.encode(text)
            assert ids == [i for part in parts for i in tok.encode(part)]
            assert tok.decode(ids) == text


def test_template_takes_arguments_as_text_and_asks_for_an_answer() -> None:
    transformers = pytest.importorskip("transformers")
    tok = transformers.AutoTokenizer.from_pretrained(ASSETS)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "x", "tool_call_id": "1"},
    ]
    text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>' in text
    assert text.endswith("x\n</tool_response><|im_end|>\n<|im_start|>assistant\n")


def test_any_text_survives_the_tokenizer() -> None:
    tok = tokenizer.load(ASSETS)
    text = "Hällo  wörld\n\n  x=1 東京 😀 don't A.B.C FOOBar_baz 3.14\t."
    assert tok.decode(tok.encode(text).ids) == text


@pytest.mark.parametrize(
    ("task", "bound"), [("qa", 0.8), ("tools", 0.8), ("json", 0.8), ("facts", 0.8)]
)
def test_the_shipped_weights_do_the_task(task: str, bound: float) -> None:
    pytest.importorskip("transformers")
    import evaluate

    greedy = evaluate.Greedy(ASSETS)
    items = [i for i in evaluate.held_out(20) if i.task == task]
    outputs = greedy.complete([i.prompt for i in items], limit=100)
    right = sum(o == i.want for o, i in zip(outputs, items, strict=True))
    assert right >= bound * len(items), [(i.want, o) for i, o in zip(items, outputs, strict=True)]
