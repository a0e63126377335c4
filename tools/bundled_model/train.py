"""Trains the bundled model: `python tools/bundled_model/train.py --minutes 75 --out build/mini`.

The learning rate rises for a moment, stays, and falls to zero over the last quarter of the time;
`--resume` goes on from the last checkpoint, also with a longer or shorter total.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor
from tqdm import tqdm

import batches
import tokenizer
from dialogue import EOT
from model import Llama, Shape, count
from muon import Mixed

ASSETS = Path(__file__).parents[2] / "inference/quire/assets/quire-mini"


class Run:
    """The state of a training run and its place on disk."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.out = Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        if not (ASSETS / "tokenizer.json").exists():
            tokenizer.train(ASSETS)
        self.tok = tokenizer.load(ASSETS)
        self.pad: int = self.tok.token_to_id(EOT) or 0
        torch.manual_seed(args.seed)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        shape = Shape(vocab=self.tok.get_vocab_size(), layers=args.layers, ffn=args.ffn)
        self.model = Llama(shape).to(self.device)
        self.optim = Mixed(self.model, args.muon_lr, args.adam_lr)
        self.model.bfloat16()
        self.step, self.tokens, self.chunk, self.spent = 0, 0, 0, 0.0
        self.history: list[dict[str, Any]] = []
        if args.resume and (self.out / "last.pt").exists():
            self.load()
        self.last_eval = self.last_save = self.spent

    def save(self) -> None:
        """Write the checkpoint beside the old one, then put it in its place."""
        names = ("step", "tokens", "chunk", "spent", "history")
        state = {n: getattr(self, n) for n in names}
        state |= {"optim": self.optim.state(), "shape": self.model.s.as_dict()}
        torch.save(state, self.out / "new.pt")
        os.replace(self.out / "new.pt", self.out / "last.pt")
        (self.out / "history.json").write_text(json.dumps(self.history))
        picture(self.history, self.out / "loss.png")

    def load(self) -> None:
        """Go on from the last checkpoint."""
        state = torch.load(self.out / "last.pt", map_location=self.device, weights_only=True)
        for name in ("step", "tokens", "chunk", "spent", "history"):
            setattr(self, name, state[name])
        self.optim.load(state["optim"])

    def rate(self) -> float:
        """Share of the full learning rate: warm-up, flat, then down to zero by the clock."""
        minutes, decay = float(self.args.minutes), float(self.args.decay)
        left = (1 - self.spent / (60 * minutes)) / decay
        return max(0.0, min(1.0, (self.step + 1) / 100, left))

    def hardness(self) -> float:
        """The curriculum: one fact or tool at first, up to the full number later."""
        return min(1.0, 0.1 + 0.9 * self.tokens / float(self.args.ramp))


def picture(history: list[dict[str, Any]], path: Path) -> None:
    """The loss and the held-out exact match as one small picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 3.4), dpi=80)
    loss = [h for h in history if "loss" in h]
    ax.plot([h["tokens"] / 1e6 for h in loss], [h["loss"] for h in loss], "k", lw=0.8, label="loss")
    ax.set_yscale("log")
    ax.set_xlabel("million tokens")
    ax.set_ylabel("loss on answers")
    score = [h for h in history if "exact" in h]
    if score:
        right = ax.twinx()
        right.set_ylim(0, 1)
        right.set_ylabel("held-out exact")
        for task in score[-1]["exact"]:
            ys = [h["exact"].get(task, math.nan) for h in score]
            right.plot([h["tokens"] / 1e6 for h in score], ys, lw=1, label=task)
        right.legend(fontsize=7, loc="center right")
    fig.tight_layout()
    fig.savefig(path)
    plt.close(fig)


@torch.no_grad()
def exact(run: Run, items: int) -> dict[str, float]:
    """Share of held-out dialogues whose every answer token is the model's first choice."""
    out = {}
    for task in ("qa", "tools", "json", "facts", "chores"):
        made = batches.rows(list(batches.held_out(task, items)), run.tok)
        made.sort(key=lambda r: len(r.ids))
        right = 0
        for i in range(0, len(made), 16):
            b = batches.collate(made[i : i + 16], run.pad)
            cos, sin = run.model.tables(b.ids.shape[1])
            d = run.device
            logits = run.model.logits(b.ids.to(d), b.keep.to(d), cos.to(d), sin.to(d))
            wrong = logits.argmax(-1).cpu() != b.target
            right += len(b.ids) - len(set((b.keep[wrong] // b.ids.shape[1]).tolist()))
        out[task] = right / items
    return out


class Shared:
    """What the processes of one run tell each other: gradients, the clock, the loss."""

    def __init__(self, run: Run, procs: int) -> None:
        self.barrier = mp.get_context("fork").Barrier(procs)
        self.clock: Tensor = torch.zeros(1).double()
        self.loss: Tensor = torch.zeros(procs)
        for t in (self.clock, self.loss):
            t.share_memory_()  # type: ignore[no-untyped-call]
        self.procs = procs
        if run.device == "cpu":
            run.model.share_memory()
        run.optim.share(procs)


def watch(run: Run, shared: Shared, bar: tqdm[Any], shown: list[float]) -> None:
    """What the first process does after a step: note the loss, evaluate and save in turn."""
    args = run.args
    shown.append(float(shared.loss.sum()))
    base = {"step": run.step, "tokens": run.tokens, "seconds": round(run.spent)}
    if run.step % 50 == 0:
        mean = sum(shown) / len(shown)
        run.history.append({**base, "loss": mean})
        state = f"{run.tokens / 1e6:.2f}M hard={run.hardness():.2f} lr={run.rate():.2f}"
        bar.set_postfix_str(f"loss={mean:.3f} {state}", refresh=False)
        shown.clear()
    bar.update(round(run.spent) - bar.n)
    if run.spent - run.last_eval > args.evaluate:
        run.last_eval = run.spent
        scores = exact(run, 64)
        run.history.append({**base, "exact": scores})
        bar.write(f"{run.tokens / 1e6:.2f}M {json.dumps(scores)}")
    if run.spent - run.last_save > args.save:
        run.last_save = run.spent
        run.save()


def train(rank: int, run: Run, shared: Shared) -> None:
    """Run until the time is spent; each process takes its share of every step's batches."""
    args, device = run.args, run.device
    torch.set_num_threads(args.threads)
    if rank > 0:
        os.setsid()  # Linux may share cores by session; one for each process is what two need
    forward = torch.compile(run.model, dynamic=True) if args.compile else run.model
    total_time = round(60 * args.minutes)
    bar = tqdm(
        total=total_time, initial=round(run.spent), unit="s", mininterval=20, disable=rank > 0
    )
    began = time.time() - run.spent
    shown: list[float] = []
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    while run.spent < total_time:
        queue = batches.chunk(run.chunk, run.hardness(), run.tok, run.pad, args.batch)
        for i in range(0, len(queue) - args.accumulate + 1, args.accumulate):
            group = queue[i : i + args.accumulate]
            total = sum(float(b.weight.sum()) for b in group)
            value = torch.zeros((), device=device)
            for b in group[rank :: shared.procs]:
                cos, sin = run.model.tables(b.ids.shape[1])
                b_in = [t.to(device) for t in (b.ids, b.keep, cos, sin, b.target)]
                loss = (forward(*b_in) * b.weight.to(device)).sum() / total
                loss.backward()
                value += loss.detach()
            run.optim.hand_in(rank)
            shared.loss[rank] = value.item()
            if rank == 0:
                shared.clock[0] = total_time + 1 if stop else time.time() - began
            shared.barrier.wait()
            run.spent = float(shared.clock[0])
            run.optim.step(run.rate(), rank, shared.procs)
            run.tokens += sum(b.tokens for b in group)
            run.step += 1
            shared.barrier.wait()
            if rank == 0 and run.spent < total_time:
                watch(run, shared, bar, shown)
            if run.spent >= total_time:
                break
        run.chunk += 1
    if rank == 0:
        run.spent = time.time() - began
        run.save()
    bar.close()


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--minutes", type=float, default=80)
    p.add_argument("--out", required=True)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--ffn", type=int, default=512)
    p.add_argument("--batch", type=int, default=3072, help="tokens in one padded batch")
    p.add_argument("--accumulate", type=int, default=2, help="batches in one step")
    p.add_argument("--muon-lr", type=float, default=0.01)
    p.add_argument("--adam-lr", type=float, default=2e-3)
    p.add_argument("--decay", type=float, default=0.25, help="share of the time spent decaying")
    p.add_argument("--ramp", type=float, default=8e6, help="tokens until the full difficulty")
    p.add_argument("--evaluate", type=float, default=240, help="seconds between evaluations")
    p.add_argument("--save", type=float, default=240, help="seconds between checkpoints")
    p.add_argument("--procs", type=int, default=2, help="processes; one each for two cores")
    p.add_argument("--threads", type=int, default=1, help="threads of each process")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return p.parse_args()


def main() -> None:
    """Start the processes: forked, so that the weights they share are one copy."""
    options = arguments()
    torch.set_num_threads(1)
    run = Run(options)
    procs = 1 if run.device == "cuda" else options.procs
    shared = Shared(run, procs)
    print(f"{count(run.model):,} parameters, {run.device}, {procs} processes", flush=True)
    context = mp.get_context("fork")
    others = [context.Process(target=train, args=(r, run, shared)) for r in range(1, procs)]
    for process in others:
        process.start()
    train(0, run, shared)
    for process in others:
        process.join()


if __name__ == "__main__":
    main()
