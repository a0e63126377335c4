"""Measures the shipped weights on held-out items by exact match of the greedy output.

Every item has names, numbers and phrasings of the held-out side of `world`, which training never
draws from. The model runs in transformers, in float32, from the written files alone:
`python tools/bundled_model/evaluate.py` prints a table and writes `evaluation.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

import batches
import facts
import qa
from dialogue import EOT, Example, Message, reply_text, segments
from tokenizer import TASKS
from train import ASSETS
from world import World

CLASSICS = [
    "The capital of France is",
    "Hello, my name is",
    "The future of AI is",
    "The president of the United States is",
    "Once upon a time",
]


@dataclass
class Item:
    """A prompt, the one right output and what it counts for."""

    task: str
    part: str
    prompt: str
    want: str
    got: str = ""

    @property
    def right(self) -> bool:
        """Whether the greedy output is the right one, to the letter."""
        return self.got == self.want


def part_of(task: str, message: Message, before: list[Message]) -> str:
    """The finer kind of an answer, for the table."""
    if task == "qa":
        return "absent" if message["content"] == qa.ABSENT else "present"
    if task == "tools":
        if message.get("tool_calls"):
            return "parallel calls" if len(message["tool_calls"]) > 1 else "call"
        return "answer from result" if before[-1]["role"] == "tool" else "no call"
    return "object" if task == "json" else "chore"


def items_of(example: Example) -> list[Item]:
    """One item for each assistant turn, with the turns before it as they should be."""
    out = []
    for i, message in enumerate(example.messages):
        if message["role"] != "assistant":
            continue
        before = example.messages[:i]
        text = "".join(s for s, _ in segments(Example("", before, example.tools)))
        part = part_of(example.task, message, before)
        prompt = text + "<|im_start|>assistant\n"
        out.append(Item(example.task, part, prompt, reply_text(message)))
    return out


def held_out(count: int) -> list[Item]:
    """The evaluation set; `count` dialogues of each task, and all the facts."""
    out = [
        i
        for task in ("qa", "tools", "json", "chores")
        for e in batches.held_out(task, count)
        for i in items_of(e)
    ]
    known = facts.held_out()
    step = max(1, len(known) // count)
    for part, ask, answer in known[::step]:
        example = Example("facts")
        example.user(ask)
        example.answer(answer)
        item = items_of(example)[0]
        item.part = part
        out.append(item)
    return out


class Greedy:
    """Greedy decoding in batches, through transformers."""

    def __init__(self, folder: Path) -> None:
        self.tok = AutoTokenizer.from_pretrained(folder)
        self.tok.padding_side = "left"
        self.model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.no_grad()
    def complete(self, prompts: list[str], limit: int = 200, size: int = 48) -> list[str]:
        """What follows each prompt, up to the end mark."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        out = [""] * len(prompts)
        for start in range(0, len(order), size):
            some = order[start : start + size]
            batch = self.tok([prompts[i] for i in some], return_tensors="pt", padding=True)
            made = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=limit,
                do_sample=False,
            )
            for i, ids in zip(some, made[:, batch["input_ids"].shape[1] :], strict=True):
                text = str(self.tok.decode(ids))
                out[i] = text.split("<|im_end|>")[0].split(EOT)[0]
        return out

    @torch.no_grad()
    def perplexity(self, texts: list[str]) -> tuple[float, float]:
        """Perplexity and share of right first guesses over the tokens of some texts."""
        loss, right, total = 0.0, 0, 0
        for text in texts:
            ids = torch.tensor([self.tok.encode(text)])
            logits = self.model(ids).logits[0, :-1]
            want = ids[0, 1:]
            loss += float(torch.nn.functional.cross_entropy(logits, want, reduction="sum"))
            right += int((logits.argmax(-1) == want).sum())
            total += len(want)
        return math.exp(loss / total), right / total


def valid_call(text: str) -> bool:
    """Whether every tool call in a text is JSON with a name and an object of arguments."""
    calls = text.split("<tool_call>\n")[1:]
    try:
        parsed = [json.loads(c.split("\n</tool_call>")[0]) for c in calls]
    except ValueError:
        return False
    return bool(parsed) and all(
        isinstance(c.get("arguments"), dict) and "name" in c for c in parsed
    )


def table(items: list[Item]) -> dict[str, dict[str, Any]]:
    """Shares of exact answers for each task and part."""
    groups: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        groups[item.task, "all"].append(item)
        groups[item.task, item.part].append(item)
    out: dict[str, dict[str, Any]] = defaultdict(dict)
    for (task, part), found in groups.items():
        exact = sum(i.right for i in found) / len(found)
        out[task][part] = {"items": len(found), "exact": round(exact, 4)}
        if "call" in part and part != "no call":
            share = sum(valid_call(i.got) for i in found) / len(found)
            out[task][part]["valid_json"] = round(share, 4)
        if part == "no call":
            share = sum("<tool_call>" not in i.got for i in found) / len(found)
            out[task][part]["without_call"] = round(share, 4)
    return dict(out)


def evaluate(folder: Path, count: int, failures: int) -> dict[str, Any]:
    """Run everything, print a table and some failures; return the figures."""
    began = time.time()
    greedy = Greedy(folder)
    items = held_out(count)
    for item, got in zip(items, greedy.complete([i.prompt for i in items]), strict=True):
        item.got = got
    figures: dict[str, Any] = {"tasks": table(items)}
    for task, parts in figures["tasks"].items():
        for part, f in parts.items():
            print(f"{task:6} {part:20} {f['items']:5}  {f['exact']:.1%}")
    for task in figures["tasks"]:
        for item in [i for i in items if i.task == task and not i.right][:failures]:
            print(
                f"\n--- {item.task}/{item.part}\n{item.prompt[-900:]}\nWANT {item.want}"
                f"\nGOT  {item.got}"
            )
    stories = [TASKS["prose"].generate(World(-i - 1, held=True)).text[0][0] for i in range(100)]
    perplexity, guess = greedy.perplexity(stories)
    figures["prose"] = {
        "items": 100,
        "perplexity": round(perplexity, 3),
        "next_token": round(guess, 4),
    }
    samples = greedy.complete(CLASSICS, 60)
    figures["completions"] = dict(zip(CLASSICS, samples, strict=True))
    print(figures["prose"], *figures["completions"].items(), sep="\n")
    print(f"{time.time() - began:.0f} s")
    return figures


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", default=str(ASSETS))
    p.add_argument("--count", type=int, default=300)
    p.add_argument("--failures", type=int, default=0, help="failures of each task to print")
    p.add_argument("--out", default="", help="where the figures go; beside the model if empty")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    figures = evaluate(Path(args.model), args.count, args.failures)
    out = Path(args.out or Path(args.model) / "evaluation.json")
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
