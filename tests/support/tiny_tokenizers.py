"""Small tokenizers of each kind, made on the spot: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

LINES = [
    "The capital of France is Paris. The capital of Japan is Tokyo.",
    "Hello, my name is Anna, and I like the sea. Hello there!",
    "the quick brown fox jumps over the lazy dog, and the dog sleeps",
    "def main():\n    return 42  # the answer\n\nmain()",
    "こんにちは世界。日本の首都は東京です。",
    "Füße, cafés & naïve façades: 👋 👩\u200d👩\u200d👧 🎉🎉",
]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% if tools %}[tools]{{ tools | tojson }}[/tools]{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% for call in message.tool_calls or [] %}[call]{{ call.function | tojson }}[/call]{% endfor %}"
    "</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def byte_level(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """GPT-2 and Llama 3: BPE over bytes, about 400 tokens; characters are split between tokens."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    return _fast(backend, chat_template)


def llama2(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """Llama 2: SentencePiece's BPE with byte fallback; the first token's leading space is dropped."""
    return _fast(_sentencepiece(models.BPE), chat_template)


def unigram(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """T5 and Gemma: SentencePiece's Unigram with byte fallback and a Metaspace decoder."""
    return _fast(_sentencepiece(models.Unigram), chat_template)


def slow(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizer:
    """A tokenizer in Python: bytes, and some longer pieces that begin or end within a character."""
    return SlowTokenizer(chat_template=chat_template, **SPECIAL)


KINDS = {"byte_level": byte_level, "llama2": llama2, "unigram": unigram, "slow": slow}


def _fast(backend: Backend, chat_template: str | None) -> PreTrainedTokenizerFast:
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
    hf.add_tokens(["<tool>"])
    hf.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", hf.convert_tokens_to_ids("<s>"))]
    )
    hf.chat_template = chat_template
    return hf


def _sentencepiece(model: Any) -> Backend:
    """Trained without bytes, then rebuilt with them: the trainers know no byte fallback."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    words = sorted({"▁" + word for line in LINES[:3] for word in line.split()})
    letters = sorted({letter for line in LINES[:4] for letter in line if letter.isprintable()})
    if model is models.Unigram:
        pieces = [*SPECIAL.values(), *byte_tokens, *letters, "▁", *words]
        vocab = [(piece, 0.0 if i < 259 else -5.0) for i, piece in enumerate(pieces)]
        backend = Backend(models.Unigram(vocab, unk_id=2, byte_fallback=True))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first", split=False)]
        )
        return backend
    pieces = [*SPECIAL.values(), *byte_tokens, *letters, "▁"]
    merges = [("▁", letter) for letter in letters if letter != " "]
    merges += [("t", "h"), ("th", "e"), ("i", "s"), ("▁", "the"), ("a", "n"), ("an", "d")]
    pieces += ["".join(pair) for pair in merges]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Backend(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return backend


class SlowTokenizer(PreTrainedTokenizer):
    """Longest piece first over UTF-8 bytes; a token's name is its bytes in hexadecimal."""

    vocab_files_names = {"vocab_file": "pieces.json"}  # noqa: RUF012 - transformers' own name
    model_input_names = ["input_ids"]  # noqa: RUF012

    PIECES = (
        b"the",
        b" the",
        b" is",
        b"ing",
        b"\xf0\x9f",
        b"\xf0\x9f\x91",
        b"a\xe6",
        b"\x97\xa5\xe6",
    )

    def __init__(self, vocab_file: str | None = None, **options: Any) -> None:
        names = [bytes([byte]).hex() for byte in range(256)] + [
            piece.hex() for piece in self.PIECES
        ]
        if vocab_file is not None:
            names = json.loads(Path(vocab_file).read_text())
        self._names = names
        self._ids = {name: i for i, name in enumerate(names)}
        super().__init__(**options)
        self.add_tokens(["<tool>"])

    @property
    def vocab_size(self) -> int:
        return len(self._names)

    def get_vocab(self) -> dict[str, int]:
        return {**self._ids, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        rest = text.encode()
        tokens = []
        while rest:
            piece = max((p for p in self.PIECES if rest.startswith(p)), key=len, default=rest[:1])
            tokens.append(piece.hex())
            rest = rest[len(piece) :]
        return tokens

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def _convert_id_to_token(self, index: int) -> str | None:
        return self._names[index] if index < len(self._names) else None

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        added = self.added_tokens_encoder
        parts = [t.encode() if t in added else bytes.fromhex(t) for t in tokens]
        return b"".join(parts).decode("utf-8", errors="replace")

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [self.bos_token_id, *token_ids_0, *(token_ids_1 or [])]

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        path = Path(save_directory) / "pieces.json"
        path.write_text(json.dumps(self._names))
        return (str(path),)
