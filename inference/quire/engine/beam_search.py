"""Beam search over an engine: every beam is a request for one more token and its log-probabilities.

The prefix cache holds the beams' common past, so that each request computes a few tokens only. The
search itself is that of transformers and fairseq: keep the `beam_width` best unfinished beams, set a
finished one aside if it is among the `beam_width` best continuations of its step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quire.engine.engine import Engine
from quire.engine.prompts import ParsedPrompt
from quire.errors import InvalidParamsError, RequestFailedError
from quire.outputs import BeamSearchOutput, BeamSearchSequence, Logprob
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams


@dataclass(slots=True)
class _Beam:
    generated: list[int]
    cum_logprob: float


@dataclass(slots=True)
class _Search:
    """The beams of one prompt."""

    prompt: ParsedPrompt
    beams: list[_Beam]
    finished: list[BeamSearchSequence] = field(default_factory=list)

    def has_room(self, max_model_len: int) -> bool:
        """Whether there are beams that can grow."""
        length = len(self.prompt.token_ids)
        return any(length + len(beam.generated) < max_model_len for beam in self.beams)


def beam_search(
    engine: Engine, prompts: list[ParsedPrompt], params: BeamSearchParams
) -> list[BeamSearchOutput]:
    """The best `beam_width` sequences of each prompt, all prompts in one batch.

    Raises:
        InvalidParamsError: `params` are of another kind.
        RequestFailedError: the model failed on a beam.
    """
    if not isinstance(params, BeamSearchParams):
        raise InvalidParamsError(
            "beam_search takes BeamSearchParams(beam_width=..., max_tokens=...), "
            f"got {type(params).__name__}",
            param="params",
        )
    searches = [_Search(prompt, [_Beam([], 0.0)]) for prompt in prompts]
    ends = frozenset() if params.ignore_eos else engine.eos_token_ids
    for _ in range(params.max_tokens):
        running = [search for search in searches if search.has_room(engine.max_model_len)]
        if not running:
            break
        # So many that `beam_width` are left when every beam could end in every way.
        count = max(2, 1 + len(ends)) * params.beam_width
        following = _next_logprobs(engine, running, count)
        for search, candidates in zip(running, following, strict=True):
            _advance(engine, search, candidates, params, ends)
    return [BeamSearchOutput(_best(engine, search, params)) for search in searches]


def _next_logprobs(
    engine: Engine, searches: list[_Search], count: int
) -> list[list[dict[int, Logprob]]]:
    """For every beam of every search, the `count` most likely next tokens."""
    one_token = SamplingParams(
        temperature=0,
        max_tokens=1,
        ignore_eos=True,
        logprobs=min(count, engine.vocab_size),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    streams = [
        [
            engine.submit(
                ParsedPrompt(
                    None, search.prompt.token_ids + beam.generated, search.prompt.cache_salt
                ),
                one_token,
            )
            for beam in search.beams
        ]
        for search in searches
    ]
    result = []
    for group in streams:
        rows = []
        for stream in group:
            completion = next(stream).outputs[0]
            if not completion.logprobs:
                raise RequestFailedError(f"beam search stopped: {completion.error}")
            rows.append(completion.logprobs[0])
        result.append(rows)
    return result


def _advance(
    engine: Engine,
    search: _Search,
    candidates: list[dict[int, Logprob]],
    params: BeamSearchParams,
    ends: frozenset[int],
) -> None:
    """Replace the search's beams by the best of their continuations."""
    grown = [
        _Beam([*beam.generated, token_id], beam.cum_logprob + entry.logprob)
        for beam, entries in zip(search.beams, candidates, strict=True)
        for token_id, entry in entries.items()
    ]
    grown.sort(key=lambda beam: beam.cum_logprob, reverse=True)
    search.beams = []
    for rank, beam in enumerate(grown):
        if beam.generated[-1] not in ends:
            search.beams.append(beam)
        elif rank < params.beam_width:
            search.finished.append(_sequence(engine, search, beam, params, "stop"))
        if len(search.beams) == params.beam_width:
            break


def _best(engine: Engine, search: _Search, params: BeamSearchParams) -> list[BeamSearchSequence]:
    start = len(search.prompt.token_ids)
    running = [_sequence(engine, search, beam, params, "length") for beam in search.beams]

    def score(sequence: BeamSearchSequence) -> float:
        length = float(len(sequence.tokens) - start)
        return float(sequence.cum_logprob / length**params.length_penalty)

    return sorted([*search.finished, *running], key=score, reverse=True)[: params.beam_width]


def _sequence(
    engine: Engine, search: _Search, beam: _Beam, params: BeamSearchParams, reason: str
) -> BeamSearchSequence:
    shown = beam.generated
    if reason == "stop" and not params.include_stop_str_in_output:
        shown = shown[:-1]
    text = None
    if engine.tokenizer is not None:
        text = engine.tokenizer.decode(shown, skip_special_tokens=params.skip_special_tokens)
    return BeamSearchSequence(
        [*search.prompt.token_ids, *beam.generated], beam.cum_logprob, text, reason
    )
