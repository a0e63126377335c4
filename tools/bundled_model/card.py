"""Writes the model's card from its evaluation, so that no figure in it is copied by hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from train import ASSETS

PARTS = {
    "qa": "answer from a given context",
    "tools": "tool dialogues",
    "json": "fill a JSON object",
    "facts": "short facts and small talk",
    "chores": "small chores of chains",
}
TARGETS = {"qa": "90 %", "tools": "95 %", "json": "90 %"}
CARD = """# quire-mini

The model quire brings along: a Llama of {params} parameters with a byte-level BPE vocabulary of
{vocab} entries, {size:.1f} MB of bfloat16 safetensors. It is there so that examples, tests and
notebooks run and say something true with no download. It is a demonstration, not an assistant:
outside the kinds of text below it says nonsense.

| | |
| --- | --- |
| layers, hidden size, feed-forward size | {layers}, {hidden}, {ffn} |
| heads, key and value heads, head size | {heads}, {kv}, {head} |
| context | {context} positions; nearly all training texts have fewer than 650 tokens, the longest \
about 1000 |
| chat format | ChatML, tools as in Hermes (`<tool_call>`, `<tool_response>`) |
| languages | English |
| made by | `tools/bundled_model/`, from scratch; synthetic text only, no downloaded data |

## What it learned from

{tokens:.0f} million tokens (padding counted) of dialogues and short texts written by the seeded
generators in `tools/bundled_model/`: questions over made-up facts, tool calls, sentences to be
turned into JSON, the capitals of the world, a few dozen definitions, small talk, and little stories
from a grammar. The prose is synthetic too: fluent for a sentence or two, without sense beyond.

## What it can do

Exact match, to the letter, of the greedy output in float32, on items held out from training: their
seeds, their invented names and their pairs of real names never occur there. Of phrasings with five
or more variants one is kept back as well; the evaluation uses it for a third of the items, and for
all of the facts. Figures from `evaluation.json`, made by `tools/bundled_model/evaluate.py`.

| task | items | exact | asked for |
| --- | --- | --- | --- |
{rows}

{notes}
Prose: perplexity {ppl:.2f} on held-out stories of the same grammar, {guess:.0%} of next tokens
guessed right.

![loss](loss.png)

## Limits

- It knows the capitals, the definitions and the small talk it was shown, and nothing else. Asked
  for more it says that it does not know, or makes something up.
- From a context it copies short spans (names, numbers, a few words). It does not reason, sum up or
  join facts, and the contexts in training have one to ten short sentences of a few dozen kinds;
  real documents are harder than the items measured here. Of 44 questions over passages written by
  hand after training, in wordings of their own, 33 were answered right.
- It calls tools whose use follows from their name and a request that states the arguments in so
  many words. One to five tools, up to three arguments, at most two calls in a turn.
- Arithmetic beyond small numbers is for tools.
- Sampling at a high temperature breaks what greedy decoding gets right.
"""


def rows(tasks: dict[str, Any]) -> str:
    """The table of exact shares, one line for a task and one for each of its parts."""
    out = []
    for task, title in PARTS.items():
        parts = tasks[task]
        for part, figures in parts.items():
            name = title if part == "all" else f"&nbsp;&nbsp;{part}"
            target = TARGETS.get(task, "") if part == "all" else ""
            out.append(f"| {name} | {figures['items']} | {figures['exact']:.1%} | {target} |")
    return "\n".join(out)


def notes(tasks: dict[str, Any]) -> str:
    """What the exact shares leave out: valid JSON, and calls where none was due."""
    call, plain = tasks["tools"]["call"], tasks["tools"].get("no call", {})
    text = f"{call['valid_json']:.1%} of the calls are valid JSON in their tags."
    if plain:
        text += f" Where no tool fits, {plain['without_call']:.1%} of the answers call none."
    return text + "\n"


def main() -> None:
    """Write README.md beside the weights."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--run", required=True, help="the folder of the training run")
    p.add_argument("--model", default=str(ASSETS))
    args = p.parse_args()
    folder = Path(args.model)
    config = json.loads((folder / "config.json").read_text())
    figures = json.loads((folder / "evaluation.json").read_text())
    history = json.loads((Path(args.run) / "history.json").read_text())
    weights = folder / "model.safetensors"
    with safe_open(str(weights), "pt") as f:
        params = sum(f.get_tensor(k).numel() for k in f.keys())  # noqa: SIM118
    text = CARD.format(
        params=f"{params / 1e6:.2f} million",
        vocab=config["vocab_size"],
        size=weights.stat().st_size / 1e6,
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        ffn=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv=config["num_key_value_heads"],
        head=config["head_dim"],
        context=config["max_position_embeddings"],
        tokens=history[-1]["tokens"] / 1e6,
        rows=rows(figures["tasks"]),
        notes=notes(figures["tasks"]),
        ppl=figures["prose"]["perplexity"],
        guess=figures["prose"]["next_token"],
    )
    (folder / "README.md").write_text(text)


if __name__ == "__main__":
    main()
