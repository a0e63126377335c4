"""`Tokenizer`: text to token ids and back, the same for fast and slow Hugging Face tokenizers.

Safe for threads: a fast tokenizer is used through a clone of its Rust part that nobody else holds (so a
caller who asks `hf` for truncation neither truncates our prompts nor meets "Already borrowed"), a slow
one behind a lock. Knows nothing of streams of tokens; that is `engine.detokenizer`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from quire.errors import InvalidPromptError, PromptTooLongError
from quire.tokenizer.chat import ChatTemplate
from quire.tokenizer.load import load_hf_tokenizer

TEMPLATE_CONTEXTS = 4  # a chat template may write this many contexts full of characters


class Tokenizer:
    """A Hugging Face tokenizer, fast or slow.

    Spaces are never cleaned up (`clean_up_tokenization_spaces`): text is what the ids say.

    Args:
        hf: the `PreTrainedTokenizerBase` to wrap; its `chat_template` may be changed at any time.
        chat_template: Jinja text, or a file of it, in place of the tokenizer's own.

    Raises:
        ConfigError: `chat_template` names a file that does not exist.
    """

    def __init__(self, hf: Any, *, chat_template: str | Path | None = None) -> None:
        self.hf = hf
        self._chat = ChatTemplate(hf, chat_template)
        self._backend = _private_backend(hf)
        # Rust releases the GIL and is safe; Python code of unknown authors is called one at a time.
        self._cutting = threading.Lock()
        self._guard = nullcontext() if self._backend is not None else threading.Lock()

    @classmethod
    def load(
        cls,
        name: str | Path,
        mode: str = "auto",
        trust_remote_code: bool = False,
        revision: str | None = None,
        token: str | None = None,
        chat_template: str | Path | None = None,
        download_dir: str | None = None,
    ) -> Tokenizer:
        """Load from a folder or the hub; see `load_hf_tokenizer` for arguments and errors."""
        hf = load_hf_tokenizer(
            name,
            mode=mode,
            trust_remote_code=trust_remote_code,
            revision=revision,
            token=token,
            download_dir=download_dir,
        )
        return cls(hf, chat_template=chat_template)

    def to_json(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`; empty for one that is not all in Rust."""
        return "" if self._backend is None else str(self._backend.to_str())

    @property
    def is_fast(self) -> bool:
        return bool(self.hf.is_fast)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id, added tokens included."""
        return max(len(self.hf), max(self.hf.get_vocab().values(), default=-1) + 1)

    @cached_property
    def max_chars_per_token(self) -> int:
        """Characters of the longest token: no prompt has more than this times its tokens."""
        return max(map(len, self.hf.get_vocab()), default=1)

    @property
    def eos_token_id(self) -> int | None:
        return None if self.hf.eos_token_id is None else int(self.hf.eos_token_id)

    @property
    def bos_token_id(self) -> int | None:
        return None if self.hf.bos_token_id is None else int(self.hf.bos_token_id)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that `decode` leaves out with `skip_special_tokens`."""
        if self._backend is None:
            return frozenset(int(i) for i in self.hf.all_special_ids)
        added = self._backend.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    @cached_property
    def byte_fallback(self) -> Mapping[int, int]:
        """Id -> byte of the tokens `<0x00>` to `<0xFF>`, if `decode` puts characters together from them."""
        vocab = self.hf.get_vocab()
        ids = [vocab.get(f"<0x{byte:02X}>") for byte in range(256)]
        euro = [ids[byte] for byte in "€".encode()]
        if None in ids or self.decode([i for i in euro if i is not None]) != "€":
            return {}
        return {i: byte for byte, i in enumerate(ids) if i is not None}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`.

        Raises:
            InvalidPromptError: `text` holds half a surrogate pair, which is no character.
        """
        check_text(text)
        if self._backend is not None:
            # The batch call is the one that releases the GIL.
            batch = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
            return list(batch[0].ids)
        with self._guard:
            ids = self.hf.encode(text, add_special_tokens=add_special_tokens, verbose=False)
        return [int(i) for i in ids]

    def encode_texts(
        self, texts: Sequence[str | tuple[str, str]], max_length: int | None = None
    ) -> list[tuple[list[int], int | None]]:
        """Token ids of many texts, or pairs of texts as one, special tokens included, in one call.

        Args:
            texts: a pair is written as the tokenizer writes two texts (`[CLS] a [SEP] b [SEP]`).
            max_length: cut longer ones to so many tokens; of a pair, the longer text first.

        Returns:
            for each the ids, and of a pair the position where the second text's segment begins, if the
            tokenizer marks segments.

        Raises:
            InvalidPromptError: a text holds half a surrogate pair, or `max_length` leaves no room for text.
        """
        for text in texts:
            check_text(text if isinstance(text, str) else "".join(text))
        if self._backend is None:
            with self._guard:
                return [self._encode_slow(text, max_length) for text in texts]
        if max_length is None:
            batch = self._backend.encode_batch_fast(list(texts), add_special_tokens=True)
        else:
            batch = self._encode_cut(texts, max_length)
        return [(list(one.ids), _second_segment(one.type_ids)) for one in batch]

    def _encode_cut(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[Any]:
        """Through a clone of the Rust part that only cuts, for one caller at a time."""
        backend = self._cutting_backend
        special = backend.num_special_tokens_to_add(any(not isinstance(t, str) for t in texts))
        _check_room(max_length, special)
        with self._cutting:
            backend.enable_truncation(max_length, strategy="longest_first")
            return list(backend.encode_batch_fast(list(texts), add_special_tokens=True))

    def _encode_slow(
        self, text: str | tuple[str, str], max_length: int | None
    ) -> tuple[list[int], int | None]:
        first, second = (text, None) if isinstance(text, str) else text
        if max_length is not None:
            _check_room(max_length, self.hf.num_special_tokens_to_add(second is not None))
        encoded = self.hf(
            first,
            second,
            truncation=max_length is not None,
            max_length=max_length,
            return_token_type_ids=True,
            verbose=False,
        )
        ids = [int(i) for i in encoded["input_ids"]]
        return ids, _second_segment(encoded["token_type_ids"])

    @cached_property
    def _cutting_backend(self) -> Any:
        return copy.deepcopy(self._backend)

    def decode(
        self,
        ids: Sequence[int],
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Text of `ids`; ids outside the vocabulary are nothing, bytes that are no character U+FFFD.

        Args:
            spaces_between_special_tokens: of slow tokenizers: put a space between added tokens and text.
        """
        if self._backend is not None:
            return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))
        with self._guard:
            if self.is_fast:
                known = [i for i in ids if 0 <= i < self.vocab_size]
                return str(
                    self.hf.decode(
                        known,
                        skip_special_tokens=skip_special_tokens,
                        clean_up_tokenization_spaces=False,
                    )
                )
            return self._decode_slow(ids, skip_special_tokens, spaces_between_special_tokens)

    def _decode_slow(self, ids: Iterable[int], skip_special: bool, spaces: bool) -> str:
        """Added tokens stand as they are; what is between them is put together by the tokenizer."""
        added = self._added_tokens
        parts: list[str] = []
        run: list[str] = []
        for i in ids:
            if not 0 <= i < self.vocab_size or (skip_special and i in self.special_ids):
                continue
            if i in added:
                parts += [self.hf.convert_tokens_to_string(run) if run else "", added[i]]
                run = []
            elif (token := self.hf.convert_ids_to_tokens(i)) is not None:
                run.append(token)
        parts.append(self.hf.convert_tokens_to_string(run) if run else "")
        return (" " if spaces else "").join(part for part in parts if part)

    @cached_property
    def _added_tokens(self) -> dict[int, str]:
        return {int(i): token for token, i in self.hf.get_added_vocab().items()}

    def id_to_text(self, token_id: int) -> str:
        """Text of one token on its own; the bytes of a part of a character are U+FFFD."""
        return self.decode([token_id], skip_special_tokens=False)

    def bad_word_ids(self, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Token sequences that spell each word, at the start of a text and after a space.

        The one after a space counts where the space is part of the word's first token: as many tokens,
        another first one.

        Raises:
            InvalidPromptError: a word holds half a surrogate pair.
        """
        sequences: list[tuple[int, ...]] = []
        for word in words:
            bare = tuple(self.encode(word.lstrip(), add_special_tokens=False))
            spaced = tuple(self.encode(" " + word.lstrip(), add_special_tokens=False))
            if bare:
                sequences.append(bare)
            if bare and len(spaced) == len(bare) and spaced[0] != bare[0]:
                sequences.append(spaced)
        return tuple(sequences)

    def check_length(self, text: str, max_model_len: int) -> None:
        """Refuse, before tokenizing, text that cannot fit into `max_model_len` tokens.

        Raises:
            PromptTooLongError: more characters than that many of the longest token have.
        """
        limit = max_model_len * self.max_chars_per_token
        if len(text) > limit:
            raise PromptTooLongError(
                f"This model's maximum context length is {max_model_len} tokens. However, your prompt "
                f"has {len(text)} characters, and {max_model_len} tokens have {limit} at most. "
                "Please reduce the length of the prompt.",
                param="prompt",
            )

    def template_text(
        self, chat_template: str | Path | None = None, tools: list[Any] | None = None
    ) -> str:
        """The chat template that a conversation is rendered by.

        Args:
            chat_template: in place of the model's, as in `ChatTemplate.render`.
            tools: whether there are any: some models have a template for them.

        Raises:
            InvalidPromptError: there is none.
            ConfigError: `chat_template` names a file that does not exist.
        """
        return self._chat.choose(chat_template, tools)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """The conversation as prompt text, special tokens written out; options of `ChatTemplate.render`.

        To run it take the ids of `encode_chat`: in them, a marker in a message is only text.
        """
        return self._chat.render(messages, **options).text

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], max_model_len: int, **options: Any
    ) -> tuple[str, list[int]]:
        """The conversation as prompt text and as token ids; options of `ChatTemplate.render`.

        Raises:
            InvalidPromptError: see `ChatTemplate.render`.
            PromptTooLongError: more characters than `max_model_len` tokens can have.
        """
        most = max_model_len * self.max_chars_per_token
        chat = self._chat.render(messages, max_characters=TEMPLATE_CONTEXTS * most, **options)
        text = chat.text
        self.check_length(text, max_model_len)
        if not chat.guard:
            return text, self.encode(text, add_special_tokens=False)
        return text, self._encode_guarded(chat.guarded_text, chat.guard)

    def _encode_guarded(self, text: str, guard: str) -> list[int]:
        """Token ids of a text in which `guard` keeps markers apart; the guard itself leaves none.

        The text is encoded with its guards, and then their tokens are left out. If a token holds more than
        a guard, the pieces between guards are encoded one by one.
        """
        check_text(text)
        if self._backend is not None:
            encoded = self._backend.encode_batch([text], add_special_tokens=False)[0]
            pairs = list(zip(encoded.ids, (text[a:b] for a, b in encoded.offsets), strict=True))
            if not any(guard in part and part != guard for _, part in pairs):
                return [token_id for token_id, part in pairs if part != guard]
        first, *others = text.split(guard)
        token_ids = self.encode(first, add_special_tokens=False)
        for piece in others:
            token_ids += self._encode_continued(piece)
        return token_ids

    def _encode_continued(self, text: str) -> list[int]:
        """Token ids of a text that others stand before: no space is put in front of it."""
        line_break = self.encode("\n", add_special_tokens=False)
        token_ids = self.encode("\n" + text, add_special_tokens=False)
        if token_ids[: len(line_break)] == line_break:
            return token_ids[len(line_break) :]
        return self.encode(text, add_special_tokens=False)


def _second_segment(type_ids: Sequence[int]) -> int | None:
    """Where the first 1 stands."""
    return type_ids.index(1) if 1 in type_ids else None


def _check_room(max_length: int, special: int) -> None:
    if max_length <= special:
        raise InvalidPromptError(
            f"truncate_prompt_tokens={max_length} leaves no room for text: {special} special tokens stand "
            "around it",
            param="truncate_prompt_tokens",
        )


def check_text(text: str) -> None:
    """Raise InvalidPromptError if `text` cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidPromptError(
            f"the text holds half a surrogate pair at character {error.start}, which is no character",
            param="prompt",
        ) from None


def _private_backend(hf: Any) -> Any | None:
    """A clone of a fast tokenizer's Rust part; None for a slow one and one with Python code around it."""
    from transformers import PreTrainedTokenizerFast

    if not isinstance(hf, PreTrainedTokenizerFast):
        return None
    for method in ("_encode_plus", "_decode", "decode"):
        if getattr(type(hf), method) is not getattr(PreTrainedTokenizerFast, method):
            return None
    backend = copy.deepcopy(hf.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = hf.split_special_tokens
    return backend
