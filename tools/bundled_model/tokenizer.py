"""Trains the byte-level BPE tokenizer and writes it with its chat template.

Words in small letters carry the space before them; names and digits stand alone, so that a name
is the same tokens in a sentence, in quotes and at the start of an answer. That is what makes
copying learnable for a model this small.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import chores
import facts
import jsonfill
import prose
import qa
import toolcalls
import words
from capitals import CAPITALS
from dialogue import END, EOT, SPECIAL, TAGS, TEMPLATE, segments
from world import World

SIZE = 2816
SPLIT = (
    r"""'(?:s|t|re|ve|ll|d|m)(?!\p{L})|": "|", "|", |\p{Lu}\p{Ll}+|\p{Lu}(?!\p{Ll})| ?\p{Ll}+|\p{N}"""
    r"""| ?[^\s\p{L}\p{N}]+|\n+|[^\S\n]+(?=[^\S\n])|\s|\p{L}"""
)
TASKS = {
    "qa": qa,
    "tools": toolcalls,
    "json": jsonfill,
    "facts": facts,
    "prose": prose,
    "chores": chores,
}


def corpus(count: int = 6000) -> Iterator[str]:
    """Training-side examples of every task, and the word lists more often than they occur."""
    for seed in range(count):
        world = World(10_000_000 + seed)
        module = TASKS[list(TASKS)[seed % 5]]
        text = "".join(part for part, _ in segments(module.generate(world)))
        for mark in (*SPECIAL, *TAGS):
            text = text.replace(mark, "\n")
        yield text
    lists = [v for v in vars(words).values() if isinstance(v, list)]
    for word in (w for items in lists for w in items):
        yield f"{word} {word}\n" * 12
    for country, city in CAPITALS.items():
        yield f"{country}\n{city}\n" * 8


def train(out: Path) -> Tokenizer:
    """Learn the merges and save the tokenizer in Hugging Face's layout."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    special = [AddedToken(t, special=True, normalized=False) for t in SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(TAGS),
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
    )
    tok.train_from_iterator(corpus(), trainer)
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    out.mkdir(parents=True, exist_ok=True)
    tok.save(str(out / "tokenizer.json"))
    configure(out)
    return tok


def configure(out: Path) -> None:
    """Write the chat template and the configuration beside a tokenizer."""
    (out / "chat_template.jinja").write_text(TEMPLATE)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END,
        "pad_token": EOT,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def load(folder: Path) -> Tokenizer:
    """The saved tokenizer as the fast library's own object."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    made = train(Path(__file__).parents[2] / "inference/quire/assets/quire-mini")
    print(made.get_vocab_size(), "entries")
