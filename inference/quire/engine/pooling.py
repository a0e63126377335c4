"""Texts to be embedded or scored: as callers write them, checked, tokenized and ready for the engine.

Knows prompts of sentence-transformers' files, pairs of texts and likeness; what runs them is
`pooling_calls`' or an endpoint's.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quire.engine.engine import Engine
from quire.engine.prompts import PoolingText, as_prompt_list, check_ids, is_list, unwrap
from quire.errors import (
    InvalidParamsError,
    InvalidPromptError,
    PromptTooLongError,
    RequestError,
    suggest,
)
from quire.executor.base import PoolingFacts
from quire.pooling_params import PoolingParams
from quire.request import Pooling

# sentence-transformers' names of the prompts for the two sides of a search.
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def embedding_texts(
    engine: Engine,
    prompts: Any,
    params: PoolingParams | None = None,
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
    field: str = "prompt",
) -> list[PoolingText]:
    """Texts to be embedded, checked and tokenized.

    Args:
        prompts: text, token ids, a dict with `prompt` or `prompt_token_ids`, or a list of these.
        prompt_name: which of the model's prompts goes in front of each text; default: the one that its files
            name. None goes in front of token ids.
        prompt: what goes in front, in its place.
        field: what the caller calls `prompts`.

    Raises:
        UnsupportedTaskError: the model makes no embeddings.
        InvalidPromptError, PromptTooLongError: naming the text at fault.
        InvalidParamsError: no such prompt, or more dimensions than there are.
    """
    engine.require("embed")
    params = _checked(params)
    facts = _facts(engine)
    prefix = _prefix(facts, prompt_name, prompt)
    pooling = _pooling(engine, facts, params, prefix)
    items = as_prompt_list(prompts)
    names = [field] if len(items) == 1 else [f"{field}[{i}]" for i in range(len(items))]
    contents: list[Any] = []
    salts: list[str | None] = []
    for name, item in zip(names, items, strict=True):
        content, salt = _named(name, lambda item=item: _content(item, engine))  # type: ignore[misc]
        if isinstance(content, str):
            content = prefix + (content.lower() if facts.lower_case else content)
        contents.append(content)
        salts.append(salt)
    ids = _tokenize(engine, contents, names, params)
    return [
        PoolingText(
            token_ids, pooling if isinstance(content, str) else unskipped(pooling), None, salt
        )
        for content, (token_ids, _), salt in zip(contents, ids, salts, strict=True)
    ]


def unskipped(pooling: Pooling) -> Pooling:
    """The pooling of a text without a prompt in front."""
    return dataclasses.replace(pooling, skip=0) if pooling.skip else pooling


@dataclass(frozen=True, slots=True)
class Scoring:
    """Pairs of texts whose scores are asked for.

    Args:
        texts: what the engine is to compute.
        pairs: of each score, the places in `texts` of query and document; None: each text is a pair.
    """

    texts: list[PoolingText]
    pairs: list[tuple[int, int]] | None = None

    def scores(self, vectors: Sequence[array[float]]) -> list[float]:
        """The scores: the cross-encoder's, or the cosines of two embeddings."""
        if self.pairs is None:
            return [vector[0] for vector in vectors]
        matrix = np.stack([np.frombuffer(vector, np.float32) for vector in vectors])
        matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
        left, right = zip(*self.pairs, strict=True)
        cosines: list[float] = (matrix[list(left)] * matrix[list(right)]).sum(1).tolist()
        return cosines

    def token_ids(self) -> list[list[int]]:
        """Of each pair, the ids of all that was read for it."""
        if self.pairs is None:
            return [text.token_ids for text in self.texts]
        return [self.texts[a].token_ids + self.texts[b].token_ids for a, b in self.pairs]


def scoring(
    engine: Engine,
    queries: Any,
    documents: Any,
    params: PoolingParams | None = None,
    *,
    fields: tuple[str, str] = ("data_1", "data_2"),
) -> Scoring:
    """Pairs to be scored, checked and tokenized: by a cross-encoder, or by the cosine of embeddings.

    Embeddings of queries and documents have the model's prompts for them in front, where it has such.

    Args:
        queries: one text, or as many as there are documents.
        documents: one text or several.
        fields: what the caller calls the two.

    Raises:
        UnsupportedTaskError: the model does neither.
        InvalidPromptError, PromptTooLongError: naming the text at fault.
    """
    params = _checked(params)
    left, right = _texts(queries, fields[0]), _texts(documents, fields[1])
    if len(left) not in (1, len(right)):
        raise InvalidParamsError(
            f"{fields[0]} has {len(left)} texts and {fields[1]} {len(right)}; give one query for all "
            "documents, or one for each",
            param=fields[0],
        )
    if "score" not in engine.facts.tasks:
        return _by_embeddings(engine, left, right, params, fields)
    if params.dimensions is not None:
        raise InvalidParamsError(
            "dimensions are of embeddings; a score has one", param="dimensions"
        )
    facts = _facts(engine)
    pooling = Pooling(facts.method, activate=params.use_activation is not False)
    queries_of = left * len(right) if len(left) == 1 else left
    pairs = [
        (a.lower(), b.lower()) if facts.lower_case else (a, b)
        for a, b in zip(queries_of, right, strict=True)
    ]
    names = [fields[1] if len(right) == 1 else f"{fields[1]}[{i}]" for i in range(len(right))]
    tokenized = _tokenize(engine, pairs, names, params)
    return Scoring([PoolingText(ids, pooling, second) for ids, second in tokenized])


def _by_embeddings(
    engine: Engine,
    left: list[str],
    right: list[str],
    params: PoolingParams,
    fields: tuple[str, str],
) -> Scoring:
    engine.require("embed")
    prompts = _facts(engine).prompts
    sides = []
    for texts, names, field in (
        (left, QUERY_PROMPTS, fields[0]),
        (right, DOCUMENT_PROMPTS, fields[1]),
    ):
        name = next((name for name in names if name in prompts), None)
        sides.append(embedding_texts(engine, texts, params, prompt_name=name, field=field))
    pairs = [(i if len(left) > 1 else 0, len(left) + i) for i in range(len(right))]
    return Scoring([*sides[0], *sides[1]], pairs)


def ranked(scores: Sequence[float], top_n: int | None = None) -> list[int]:
    """Places of the highest scores, best first; equal ones in their order.

    Raises:
        InvalidParamsError: `top_n` is no whole number above 0.
    """
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise InvalidParamsError(
            f"top_n must be a whole number above 0; got {top_n!r}", param="top_n"
        )
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return order if top_n is None else order[:top_n]


def _facts(engine: Engine) -> PoolingFacts:
    facts = engine.facts.pooling
    assert facts is not None, "a model that embeds or scores says how"
    return facts


def _checked(params: object) -> PoolingParams:
    if params is None:
        return PoolingParams()
    if not isinstance(params, PoolingParams):
        raise InvalidParamsError(
            f"pooling_params must be a PoolingParams, got {type(params).__name__}",
            param="pooling_params",
        )
    return params


def _pooling(engine: Engine, facts: PoolingFacts, params: PoolingParams, prefix: str) -> Pooling:
    """How the vectors of texts behind `prefix` are made."""
    if params.dimensions is not None and params.dimensions > facts.size:
        raise InvalidParamsError(
            f"dimensions={params.dimensions} is more than the {facts.size} numbers that the model's "
            "embeddings have",
            param="dimensions",
        )
    skip = 0
    if prefix and not facts.include_prompt and engine.tokenizer is not None:
        [(ids, _)] = engine.tokenizer.encode_texts([prefix])
        skip = len(ids) - (ids[-1] in engine.tokenizer.special_ids)
    activate = facts.activate if params.use_activation is None else params.use_activation
    return Pooling(facts.method, skip, params.dimensions, activate)


def _prefix(facts: PoolingFacts, name: str | None, prompt: str | None) -> str:
    if prompt is not None:
        if not isinstance(prompt, str):
            raise InvalidParamsError("prompt must be a text", param="prompt")
        return prompt
    name = facts.default_prompt_name if name is None else name
    if name is None:
        return ""
    if name not in facts.prompts:
        known = ", ".join(facts.prompts) or "none"
        raise InvalidParamsError(
            f"the model has no prompt {str(name)[:100]!r} (it has: {known})"
            f"{suggest(str(name), facts.prompts)}",
            param="prompt_name",
        )
    return facts.prompts[name]


def _content(item: Any, engine: Engine) -> tuple[Any, str | None]:
    """A text, or checked token ids; and the cache salt."""
    content, _, salt = unwrap(item)
    if isinstance(content, str):
        if not content:
            raise InvalidPromptError("the text is empty: pass some text", param="prompt")
        return content, salt
    if not is_list(content) or not content:
        raise InvalidPromptError("must be a text, or a non-empty list of token ids", param="prompt")
    check_ids(content, engine.vocab_size)
    return list(content), salt


def _texts(texts: Any, field: str) -> list[str]:
    items = [texts] if isinstance(texts, str) else texts
    if not is_list(items) or not items:
        raise InvalidPromptError(
            f"{field} must be a text, or a non-empty list of texts", param=field
        )
    for i, item in enumerate(items):
        if not isinstance(item, str) or not item:
            name = f"{field}[{i}]" if len(items) > 1 else field
            raise InvalidPromptError(f"{name} must be a text that is not empty", param=name)
    return list(items)


def _tokenize(
    engine: Engine, contents: Sequence[Any], names: Sequence[str], params: PoolingParams
) -> list[tuple[list[int], int | None]]:
    """Ids of texts, pairs and ids, each cut or refused where it is too long."""
    longest = engine.max_model_len
    cut = params.truncate_prompt_tokens
    if cut is not None:
        cut = longest if cut == -1 else min(cut, longest)
    texts = [i for i, content in enumerate(contents) if not isinstance(content, list)]
    found: list[tuple[list[int], int | None]] = [
        (content[:cut], None) if isinstance(content, list) else ([], None) for content in contents
    ]
    if texts:
        if engine.tokenizer is None:
            raise InvalidPromptError(
                "the engine has no tokenizer (skip_tokenizer_init): pass token ids", param=names[0]
            )
        if cut is None:
            for i in texts:
                _named(names[i], lambda i=i: _check_length(engine, contents[i]))  # type: ignore[misc]
        tokenized = engine.tokenizer.encode_texts([contents[i] for i in texts], cut)
        for i, one in zip(texts, tokenized, strict=True):
            found[i] = one
    for name, (ids, _) in zip(names, found, strict=True):
        if len(ids) > longest:
            raise PromptTooLongError(
                f"{name} has {len(ids)} tokens, and the model takes {longest}; shorten it, or set "
                "truncate_prompt_tokens=-1 to have it cut",
                param=name,
            )
        if not ids:
            raise InvalidPromptError(f"{name} has no tokens", param=name)
    return found


def _check_length(engine: Engine, text: str | tuple[str, str]) -> None:
    assert engine.tokenizer is not None
    for part in (text,) if isinstance(text, str) else text:
        engine.tokenizer.check_length(part, engine.max_model_len)


def _named(name: str, check: Callable[[], Any]) -> Any:
    """What `check` returns; its error, if there is one, says which text it is of."""
    try:
        return check()
    except RequestError as error:
        raise type(error)(f"{name}: {error.message}", param=name) from None
