"""The training twin of a Llama model: plain torch, Hugging Face weight names, loss where asked.

Only the positions that carry a loss pass the last feed-forward layer and the vocabulary
projection; with short answers after long prompts that saves a third of the work.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; `hf_config` writes them as a Llama configuration."""

    vocab: int = 2816
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 512
    theta: float = 10000.0
    eps: float = 1e-5

    def hf_config(self, eos: list[int], pad: int, length: int = 2048) -> dict[str, Any]:
        """The `config.json` that transformers and quire read."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.ffn,
            "max_position_embeddings": length,
            "mlp_bias": False,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": self.eps,
            "rope_scaling": None,
            "rope_theta": self.theta,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocab,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)


class Norm(nn.Module):
    """Root-mean-square norm, reckoned in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * self.weight.float()).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the two-halves layout that Llama checkpoints use."""
    half = x.shape[-1] // 2
    a, b = x[..., :half].float(), x[..., half:].float()
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Causal attention with grouped key and value heads."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        b, t, _ = x.shape
        s = self.s
        q = self.q_proj(x).view(b, t, s.heads, s.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin) * s.head_dim**-0.5, rotate(k, cos, sin)
        q = q.reshape(b * s.kv_heads, -1, s.head_dim)
        k, v = k.reshape(b * s.kv_heads, t, s.head_dim), v.reshape(b * s.kv_heads, t, s.head_dim)
        score = torch.bmm(q, k.mT).view(-1, t, t) + mask
        y = torch.bmm(score.softmax(-1).view(b * s.kv_heads, -1, t), v)
        y = y.view(b, s.heads, t, s.head_dim)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(b, t, s.heads * s.head_dim))
        return out


class Feed(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.ffn, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.ffn, bias=False)
        self.down_proj = nn.Linear(s.ffn, s.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One transformer layer; `keep` names the flat positions the feed-forward part goes on with."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = Feed(s)
        self.input_layernorm = Norm(s.hidden, s.eps)
        self.post_attention_layernorm = Norm(s.hidden, s.eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, keep: Tensor | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        if keep is not None:
            x = x.flatten(0, 1)[keep]
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Inner(nn.Module):
    """Named `model` in the checkpoint, as Hugging Face does."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        self.layers = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden, s.eps)


class Llama(nn.Module):
    """A Llama whose output and input embeddings are one matrix."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.model = Inner(s)
        half = s.head_dim // 2
        self.freq = 1.0 / (s.theta ** (torch.arange(half).float() / half))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Small embeddings, silent outputs, and a start at copying (see `seed_copying`)."""
        for name, p in self.named_parameters():
            if p.dim() < 2:
                continue
            std = 0.02 if "embed" in name else 0.5 / math.sqrt(p.shape[1])
            if "o_proj" in name or "down_proj" in name:
                std = 0.0
            nn.init.normal_(p, std=std)
        self.seed_copying()

    def attention(self, layer: int) -> Attention:
        """The attention part of a layer."""
        block = self.model.layers[layer]
        assert isinstance(block, Block)
        return block.self_attn

    @torch.no_grad()
    def seed_copying(self) -> None:
        """Begin with heads that look one and two tokens back, and heads that use them to copy.

        Layer 0 attends to the token before by position alone: embeddings share a constant first
        entry, and a query and key made from it differ by a turn of one or two places. Layers 1
        and 2 look for places whose preceding token equals the current one, and pass on what
        stands there. Training changes these weights like any others.
        """
        s = self.s
        half, group = s.head_dim // 2, s.heads // s.kv_heads
        self.model.embed_tokens.weight[:, 0] = 0.06
        basis = torch.linalg.qr(torch.randn(s.hidden, s.hidden))[0]
        read = [basis[:, i * s.head_dim : (i + 1) * s.head_dim].T for i in range(4)]
        fast = torch.zeros(s.head_dim)
        fast[:8] = fast[half : half + 8] = 1.6
        slow = torch.ones(s.head_dim) * 1.7
        slow[:12] = slow[half : half + 12] = 0.0
        for kv in range(min(2, s.kv_heads)):
            q = slice(kv * group * s.head_dim, (kv * group + 1) * s.head_dim)
            k = slice(kv * s.head_dim, (kv + 1) * s.head_dim)
            first = self.attention(0)
            angle = self.freq * (kv + 1)
            turned = rotate(fast[None], angle.cos(), angle.sin())[0]
            first.q_proj.weight[q], first.k_proj.weight[k] = 0.0, 0.0
            first.q_proj.weight[q, 0], first.k_proj.weight[k, 0] = fast, turned
            first.v_proj.weight[k] = read[0]
            first.o_proj.weight[:, q] = 0.04 * read[1 + kv].T
            for attn in (self.attention(1), self.attention(2)):
                attn.q_proj.weight[q] = slow[:, None] * read[0]
                attn.k_proj.weight[k] = slow[:, None] * read[1]
                attn.v_proj.weight[k] = read[0 if kv == 0 else 3]
                attn.o_proj.weight[:, q] = 0.04 * read[0 if kv == 0 else 3].T

    def tables(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions 0 to length - 1."""
        angle = torch.outer(torch.arange(length).float(), self.freq)
        return angle.cos(), angle.sin()

    def logits(self, ids: Tensor, keep: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Logits at the flat positions `keep` of a batch of rows padded on the right."""
        x = self.model.embed_tokens(ids)
        t = ids.shape[1]
        mask = torch.full((t, t), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        last = len(self.model.layers) - 1
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, keep if i == last else None)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def forward(
        self, ids: Tensor, keep: Tensor, cos: Tensor, sin: Tensor, target: Tensor
    ) -> Tensor:
        """Loss of each kept position against its target."""
        out = self.logits(ids, keep, cos, sin)
        return F.cross_entropy(out.float(), target, reduction="none")


def count(model: nn.Module) -> int:
    """How many parameters the model has."""
    return sum(p.numel() for p in model.parameters())
