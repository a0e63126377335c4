"""How a request's tokens are chosen and when it ends: vLLM's names, defaults and rules.

A value object of the standard library alone. It checks what can be checked without a model; what needs
one (vocabulary, context length, tokenizer) is checked when the request is admitted to an engine.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

from quire.errors import InvalidParamsError, UnknownParamError, suggest
from quire.structured_outputs import StructuredOutputsParams

GREEDY_BELOW = 1e-5  # temperatures under this choose the most likely token
MIN_TEMPERATURE = 0.01  # sampled temperatures are raised to this: logits / t must stay finite
MAX_TEMPERATURE = 2.0
MAX_N = 16384
MAX_BAD_WORDS = 128

# Names that vLLM or its users knew once, and what to write today.
RETIRED = {
    "best_of": "sample n sequences (n=...) and keep the best by `cumulative_logprob`",
    "use_beam_search": "call LLM.beam_search(prompts, BeamSearchParams(beam_width=...))",
    "length_penalty": "it belongs to beam search: BeamSearchParams(length_penalty=...)",
    "early_stopping": "it belonged to beam search; LLM.beam_search needs no such switch",
    "max_new_tokens": "write max_tokens",
    "num_return_sequences": "write n",
    "do_sample": "write temperature=0 for greedy decoding, any other temperature samples",
    "stop_sequences": "write stop",
    "eos_token_id": "write stop_token_ids",
    "logits_processors": "use logit_bias, allowed_token_ids or bad_words",
    "truncate_prompt_tokens": "cut the prompt's token ids before the call",
    "guided_decoding": "write structured_outputs=StructuredOutputsParams(...)",
    "guided_json": "write structured_outputs=StructuredOutputsParams(json=...)",
    "guided_regex": "write structured_outputs=StructuredOutputsParams(regex=...)",
    "guided_choice": "write structured_outputs=StructuredOutputsParams(choice=...)",
    "guided_grammar": "write structured_outputs=StructuredOutputsParams(grammar=...)",
    "guided_json_object": "write structured_outputs=StructuredOutputsParams(json_object=True)",
    "guided_whitespace_pattern": "write "
    "structured_outputs=StructuredOutputsParams(..., whitespace_pattern=...)",
    "guided_decoding_backend": "there is one backend",
    "structural_tag": "write structured_outputs=StructuredOutputsParams(structural_tag=...)",
    "flat_logprobs": "logprobs are dicts, one for each position",
    "logprob_token_ids": "logprobs=k returns the k most likely tokens; max_logprobs=-1 allows all",
    "prompt_logprob_start": "prompt_logprobs are of the whole prompt",
    "stream_interval": "outputs come as they are made, and merge while the reader lags",
    "skip_reading_prefix_cache": "give the prompt a cache_salt of its own",
    "extra_args": "every parameter has a name of its own here",
}


class RequestOutputKind(enum.Enum):
    """What each output of a request holds."""

    CUMULATIVE = 0  # everything generated so far
    DELTA = 1  # only what is new since the last output
    FINAL_ONLY = 2  # a single output, at the end


@dataclass(kw_only=True)
class SamplingParams:
    """Sampling parameters of one request.

    Fields that the caller does not set take the model's defaults from `generation_config.json` where it
    has any, then the defaults below.

    Args:
        n: sequences to generate for the prompt; must be 1 with greedy decoding.
        presence_penalty: subtracted from the logits of tokens generated so far, in [-2, 2].
        frequency_penalty: the same, times how often each was generated, in [-2, 2].
        repetition_penalty: > 0; divides positive and multiplies negative logits of tokens that stand
            in the prompt or the output (Keskar et al. 2019, CTRL).
        temperature: in [0, 2]; 0 is greedy.
        top_p: in (0, 1]: sample from the smallest set of tokens whose probability reaches this.
        top_k: sample from the k most likely tokens; 0 or -1: all.
        min_p: in [0, 1]: drop tokens less likely than this share of the most likely one.
        seed: the request's tokens depend on this alone, not on its neighbours; None or -1: any.
        stop: string or strings that end the text; needs `detokenize`.
        stop_token_ids: ids that end the sequence, beside the model's own end of sequence.
        include_stop_str_in_output: keep the stop string (or stop token's text) in the text.
        ignore_eos: generate on after the model's end of sequence.
        max_tokens: the most tokens to generate; None: to the end of the context.
        min_tokens: no end of sequence and no stop before this many tokens.
        logprobs: also return the log-probabilities of the k most likely tokens at each position and of
            the sampled one (up to k + 1 entries); -1: of the whole vocabulary.
        prompt_logprobs: the same for the prompt's positions.
        logit_bias: token id -> number in [-100, 100] (clamped) added to its logit.
        allowed_token_ids: only these may be generated.
        bad_words: words that may not be generated.
        thinking_token_budget: the most tokens of the thought of a model that thinks before it answers; then
            the thought's end is written, and the answer follows. None or -1: no limit.
        structured_outputs: a shape that the text must have; log-probabilities are then of what it allows.
        detokenize: make text; without it only ids are returned.
        skip_special_tokens: leave special tokens out of the text.
        spaces_between_special_tokens: put spaces between special tokens (slow tokenizers).
        output_kind: what each output of a stream holds.

    Raises:
        InvalidParamsError: a value out of range (a ValueError).
        UnknownParamError: a name that does not exist, with the nearest one that does (a TypeError).
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    thinking_token_budget: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    best_of: InitVar[None] = None  # what LlamaIndex's Vllm passes on; it asks for nothing

    # generation_config.json's names for our fields
    MODEL_DEFAULTS: ClassVar[dict[str, str]] = {
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repetition_penalty",
        "presence_penalty": "presence_penalty",
        "frequency_penalty": "frequency_penalty",
        "max_new_tokens": "max_tokens",
    }

    def __new__(cls, *args: Any, **given: Any) -> SamplingParams:
        if args:
            raise UnknownParamError("SamplingParams takes its fields by name, not by position")
        if given.get("best_of", 0) is None:
            del given["best_of"]
        for name in given:
            refuse_unknown(name, _FIELDS)
        self = super().__new__(cls)
        self.__dict__["_given"] = frozenset(given)
        return self

    def __post_init__(self, best_of: None) -> None:
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        if self.seed == -1:
            self.seed = None
        if self.thinking_token_budget == -1:
            self.thinking_token_budget = None
        if self.logprobs is True:
            self.logprobs = 1
        if self.prompt_logprobs is True:
            self.prompt_logprobs = 1
        if self.logit_bias:
            self.logit_bias = _checked_bias(self.logit_bias)
        self.validate()
        self.__dict__["_made"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_unknown(name, _FIELDS)
        if "_made" in self.__dict__:
            self.__dict__["_given"] |= {name}
        super().__setattr__(name, value)

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def stop_strings(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    def fields_set(self) -> frozenset[str]:
        """Names of the fields that the caller set, at construction or by assignment since."""
        given: frozenset[str] = self.__dict__["_given"]
        return given

    def with_defaults(self, defaults: Mapping[str, Any]) -> SamplingParams:
        """A copy in which fields that the caller did not set take `defaults` (our field names)."""
        kept = {name: getattr(self, name) for name in self.fields_set()}
        return SamplingParams(**{**defaults, **kept})

    def clone(self, **changes: Any) -> SamplingParams:
        """A copy with `changes`; what the caller had set stays known as set."""
        kept = {name: getattr(self, name) for name in self.fields_set()}
        return SamplingParams(**{**kept, **changes})

    def validate(self) -> None:
        """Check every field on its own and against the others; raises InvalidParamsError."""
        self._check_counts()
        self._check_distribution()
        self._check_ends()
        self._check_token_choices()
        self._check_structure()

    def _check_counts(self) -> None:
        _check_int("n", self.n, 1, MAX_N)
        if self.n > 1 and self.greedy:
            raise InvalidParamsError(
                f"n must be 1 when using greedy sampling, got n={self.n}: "
                "set a temperature above 0 to get different sequences",
                param="n",
            )
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 1)
        _check_int("min_tokens", self.min_tokens, 0)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParamsError(
                f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}",
                param="min_tokens",
            )
        if self.thinking_token_budget is not None:
            _check_int("thinking_token_budget", self.thinking_token_budget, 0)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _check_int(name, getattr(self, name), -1)
        if self.seed is not None:
            _check_int("seed", self.seed, -(2**63), 2**64 - 1)

    def _check_distribution(self) -> None:
        _check_float("presence_penalty", self.presence_penalty, -2, 2)
        _check_float("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_float("repetition_penalty", self.repetition_penalty, 0, math.inf)
        _check_float("temperature", self.temperature, 0, MAX_TEMPERATURE)
        _check_float("top_p", self.top_p, 0, 1)
        _check_float("min_p", self.min_p, 0, 1)
        for name in ("repetition_penalty", "top_p"):
            if getattr(self, name) <= 0:
                raise InvalidParamsError(f"{name} must be greater than 0, got 0", param=name)
        _check_int("top_k", self.top_k, -1, 2**31 - 1)

    def _check_ends(self) -> None:
        for name in ("include_stop_str_in_output", "ignore_eos", "detokenize",
                     "skip_special_tokens", "spaces_between_special_tokens"):  # fmt: skip
            if not isinstance(getattr(self, name), bool):
                raise InvalidParamsError(
                    f"{name} must be True or False, got {getattr(self, name)!r}", param=name
                )
        if self.stop is not None and not isinstance(self.stop, (str, list, tuple)):
            raise InvalidParamsError("stop must be a string or a list of strings", param="stop")
        for text in self.stop_strings:
            if not isinstance(text, str) or not text:
                raise InvalidParamsError(
                    f"stop must hold non-empty strings, got {text!r}", param="stop"
                )
        if self.stop and not self.detokenize:
            raise InvalidParamsError(
                "stop strings need text: set detokenize=True, or use stop_token_ids", param="stop"
            )
        _check_ids("stop_token_ids", self.stop_token_ids)
        if not isinstance(self.output_kind, RequestOutputKind):
            raise InvalidParamsError("output_kind must be a RequestOutputKind", param="output_kind")

    def _check_token_choices(self) -> None:
        _check_ids("allowed_token_ids", self.allowed_token_ids)
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise InvalidParamsError(
                "allowed_token_ids must not be empty: nothing could be generated",
                param="allowed_token_ids",
            )
        words = self.bad_words or []
        if isinstance(words, str) or not all(isinstance(word, str) and word for word in words):
            raise InvalidParamsError(
                "bad_words must be a list of non-empty strings", param="bad_words"
            )
        if len(words) > MAX_BAD_WORDS:
            raise InvalidParamsError(
                f"at most {MAX_BAD_WORDS} bad_words, got {len(words)}", param="bad_words"
            )

    def _check_structure(self) -> None:
        if self.structured_outputs is None:
            return
        if not isinstance(self.structured_outputs, StructuredOutputsParams):
            raise InvalidParamsError(
                "structured_outputs must be a StructuredOutputsParams, for instance "
                "StructuredOutputsParams(json=schema), got "
                f"{type(self.structured_outputs).__name__}",
                param="structured_outputs",
            )
        if self.ignore_eos:
            raise InvalidParamsError(
                "ignore_eos does not go with structured_outputs: where the structure is complete, "
                "nothing but the end of the sequence is left",
                param="ignore_eos",
            )

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in _FIELDS if name in self.fields_set()
        )
        return f"SamplingParams({shown})"


@dataclass(frozen=True, kw_only=True)
class BeamSearchParams:
    """Parameters of `LLM.beam_search`.

    Args:
        beam_width: sequences kept at each step, and returned.
        max_tokens: tokens to generate at most.
        ignore_eos: go on after the model's end of sequence.
        temperature: 0 or 1, which mean the same: beams are ranked by the model's own probabilities.
        length_penalty: a beam's score is its log-probability over the number of its generated tokens
            to this power, as in transformers.
        include_stop_str_in_output: keep the end-of-sequence token's text.
        skip_special_tokens: leave special tokens out of the text.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        _check_int("beam_width", self.beam_width, 1, 256)
        _check_int("max_tokens", self.max_tokens, 1)
        if self.temperature not in (0, 1):
            raise InvalidParamsError(
                f"beam search ranks by the model's own probabilities: temperature must be 0 or 1, "
                f"got {self.temperature!r}",
                param="temperature",
            )
        _check_float("length_penalty", self.length_penalty, -100, 100)


def refuse_unknown(name: str, known: Mapping[str, Any]) -> None:
    """Raise UnknownParamError for a field that does not exist, saying what to write instead."""
    if name in known:
        return
    if name in RETIRED:
        raise UnknownParamError(
            f"{name!r} is not a sampling parameter: {RETIRED[name]}", param=name
        )
    raise UnknownParamError(
        f"unknown sampling parameter {name!r}{suggest(name, known)}", param=name
    )


def _check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidParamsError(f"{name} must be an integer, got {value!r}", param=name)
    if value < low or (high is not None and value > high):
        bound = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InvalidParamsError(f"{name} must be {bound}, got {value}", param=name)


def _check_float(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidParamsError(f"{name} must be a finite number, got {value!r}", param=name)
    if not low <= value <= high:
        raise InvalidParamsError(
            f"{name} must be between {low} and {high}, got {value}", param=name
        )


def _check_ids(name: str, ids: object) -> None:
    if ids is None:
        return
    if not isinstance(ids, (list, tuple)):
        raise InvalidParamsError(f"{name} must be a list of token ids, got {ids!r}", param=name)
    for token_id in ids:
        _check_int(name, token_id, 0)


def _checked_bias(bias: object) -> dict[int, float]:
    if not isinstance(bias, Mapping):
        raise InvalidParamsError("logit_bias must map token ids to numbers", param="logit_bias")
    checked = {}
    for key, value in bias.items():
        try:
            token_id = int(key)
        except (TypeError, ValueError):
            raise InvalidParamsError(
                f"logit_bias keys must be token ids, got {key!r}", param="logit_bias"
            ) from None
        _check_int("logit_bias", token_id, 0)
        _check_float("logit_bias", value, -math.inf, math.inf)
        checked[token_id] = min(max(float(value), -100.0), 100.0)
    return checked


_FIELDS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(SamplingParams)
}
