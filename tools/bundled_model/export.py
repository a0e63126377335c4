"""Writes a checkpoint as a Hugging Face folder: bfloat16 safetensors, configuration, loss picture.

`python tools/bundled_model/export.py --run build/mini` also checks that transformers computes the
same logits from the written files as the training model does.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import tokenizer
from dialogue import END, EOT
from model import Llama, Shape, count
from muon import Mixed
from train import ASSETS


def load(path: Path) -> Llama:
    """The model of a checkpoint, its float32 master weights rounded to bfloat16."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = Llama(Shape(**state["shape"]))
    Mixed(model).load(state["optim"])
    return model.bfloat16()


def write(model: Llama, out: Path) -> None:
    """Weights and configuration into a folder that already has the tokenizer."""
    tok = tokenizer.load(out)
    end, pad = tok.token_to_id(END) or 0, tok.token_to_id(EOT) or 0
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    config = model.s.hf_config([end, pad], pad)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {
        "eos_token_id": [end, pad],
        "pad_token_id": pad,
        "do_sample": False,
        "max_new_tokens": 128,
    }
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


@torch.no_grad()
def difference(model: Llama, out: Path) -> float:
    """Largest difference of logits between transformers' model and ours, both in float32."""
    from transformers import LlamaForCausalLM

    theirs = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    ours = model.float()
    ids = torch.randint(5, ours.s.vocab, (2, 50))
    mine = ours.logits(ids, torch.arange(100), *ours.tables(50))
    gap: float = (theirs(ids).logits.flatten(0, 1) - mine).abs().max().item()
    return gap


def main() -> None:
    """Export the last checkpoint of a run."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--run", required=True)
    p.add_argument("--out", default=str(ASSETS))
    args = p.parse_args()
    out = Path(args.out)
    model = load(Path(args.run) / "last.pt")
    write(model, out)
    picture = Path(args.run) / "loss.png"
    if picture.exists():
        shutil.copy(picture, out / "loss.png")
    size = (out / "model.safetensors").stat().st_size
    print(f"{count(model):,} parameters, {size / 1e6:.2f} MB, gap {difference(model, out):.2e}")


if __name__ == "__main__":
    main()
