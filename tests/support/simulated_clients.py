"""The simulation's clients: the real output path, readers that lag, and what each of them must get.

A client's n requests are the sequences of one real `RequestState`, whose text comes from the real
`Detokenizer`; stop strings are found there, not scripted. Readers poll or listen, at once, now and then
or only when all is over. What they must get is made anew, by decoding all tokens in one go.

This module knows no scheduler. The numbers in its assertions are those of the simulation's invariants.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from quire.engine.output import RequestState
from quire.outputs import CompletionOutput, RequestMetrics, RequestOutput
from quire.plan import Progress
from quire.request import FinishReason, Request
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.tokenizer import Tokenizer
from simulated_model import VOCABULARY, reference_generation

REPLACEMENT = "\ufffd"
CHARACTERS = "é日本👋👩"
STOP_STRINGS = ("ab", "aba", "bb a", " b", "a a", "é", "日b", "a👋", "本", "<s>")
LONGEST_STOP = max(map(len, STOP_STRINGS))


@functools.cache
def tokenizer() -> Tokenizer:
    """Byte-level; every third token begins or ends within a character; three ids have no token."""
    pieces = [b"a", "👋".encode()[:2], "👋".encode()[2:]]  # prompts are made of these and of id 0
    for data in (character.encode() for character in CHARACTERS):
        cuts = itertools.combinations(range(len(data) + 1), 2)
        pieces += [data[start:end] for start, end in cuts]
        pieces += [b"a" + data[:end] for end in range(1, len(data))]
        pieces += [data[start:] + b"b" for start in range(1, len(data))]
    for length in range(1, 5):
        pieces += [bytes(letters) for letters in itertools.product(b"ab ", repeat=length)]
    names = ["<s>", *dict.fromkeys("".join(map(_symbol, piece)) for piece in pieces)]
    vocabulary = {name: token_id for token_id, name in enumerate(names[: VOCABULARY - 3])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"))


def _symbol(byte: int) -> str:
    """The letter that stands for a byte in a byte-level vocabulary (Radford et al. 2019, GPT-2)."""
    unseen = [*range(33), 127, *range(128, 161), 173]
    return chr(256 + unseen.index(byte)) if byte in unseen else chr(byte)


def draw_output_params(draw: random.Random) -> dict[str, Any]:
    """The sampling parameters that concern text and outputs."""
    params: dict[str, Any] = {
        "output_kind": draw.choice(list(RequestOutputKind)),
        "logprobs": draw.choice((None, None, 0)),
        "skip_special_tokens": draw.random() < 0.7,
    }
    if draw.random() < 0.5:
        params["stop"] = draw.sample(STOP_STRINGS, draw.randint(1, 3))
        params["include_stop_str_in_output"] = draw.random() < 0.3
    else:
        params["detokenize"] = draw.random() < 0.8
    return params


@dataclass
class _Read:
    """What a reader holds of one sequence after an output."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    num_logprobs: int = 0
    end: tuple[str | None, int | str | None] | None = None  # finish and stop reason

    def followed_by(self, output: CompletionOutput, *, delta: bool) -> _Read:
        text, token_ids = output.text, output.token_ids
        num_logprobs = len(output.logprobs or ())
        if delta:
            assert self.end is None, "(7) an output after the end"
            text, token_ids = self.text + text, self.token_ids + token_ids
            num_logprobs += self.num_logprobs
        end = (output.finish_reason, output.stop_reason) if output.finish_reason else None
        assert text.startswith(self.text), "(7) text was revised"
        assert token_ids[: len(self.token_ids)] == self.token_ids, "(7) tokens were revised"
        assert self.end is None or (self.end, self.text) == (end, text), "(7) a second end"
        return _Read(text, token_ids, num_logprobs, end)


class Client:
    """A caller with its request of n sequences, and all that it has read."""

    def __init__(self, requests: list[Request], draw: random.Random, now: float) -> None:
        self.requests = requests
        self.params = requests[0].params
        prompt = requests[0].prompt_token_ids
        self.state = RequestState(
            requests[0].id, None, prompt, self.params, tokenizer(), RequestMetrics(now)
        )
        self.eager = draw.random() < 0.3
        self.pace = 1.0 if self.eager else draw.choice((0.5, 0.1, 0.0))  # of steps read after
        self.reads: dict[int, list[_Read]] = {index: [_Read()] for index in range(len(requests))}
        self.outputs: list[RequestOutput] = []
        self.over = False
        self.reported_positions: list[float] = []  # of the prompt, before the state sees them
        self._listens = draw.random() < 0.5
        self._num_listeners = self._num_calls = 0

    def read(self) -> None:
        """Take an output, if there is one."""
        if self.over or not self._has_output():
            return
        output = self.state.take()
        if output is None:
            self.over = True
            return
        assert not (self.outputs and self.outputs[-1].finished), "(7) an output after the last"
        assert output.outputs, "(7) an output of nothing"
        self.outputs.append(output)
        delta = self.params.output_kind is RequestOutputKind.DELTA
        for completion in output.outputs:
            reads = self.reads[completion.index]
            reads.append(reads[-1].followed_by(completion, delta=delta))

    def _has_output(self) -> bool:
        if not self._listens:
            return self.state.wait(timeout=0)
        if self._num_listeners == self._num_calls:
            self._num_listeners += 1
            self.state.listen(self._on_call)
        return self._num_listeners == self._num_calls

    def _on_call(self) -> None:
        self._num_calls += 1

    # ------------------------------------------------------------------ at the end

    def check(self, max_model_len: int) -> None:
        """Read to the end, and compare with what must have come."""
        for _ in range(3):
            self.read()
        assert self.over, "(7) the end never came"
        assert self.outputs[-1].finished, "(7) the last output does not say so"
        assert self.state._listeners == [], "(8) a listener is left"
        if self.params.output_kind is RequestOutputKind.FINAL_ONLY:
            assert len(self.outputs) == 1, "(7) more than the final output"
        times = self.state.metrics
        moments = [times.arrival_time, times.first_token_time, times.last_token_time]
        passed = [moment for moment in [*moments, times.finished_time] if moment is not None]
        assert passed == sorted(passed), "(7) times out of order"
        for index, request in enumerate(self.requests):
            self._check_sequence(request, self.reads[index], max_model_len)
        self._check_prompt()

    def _check_sequence(self, request: Request, reads: list[_Read], max_model_len: int) -> None:
        last = reads[-1]
        assert last.end is not None, "(7) a sequence without an end"
        texts, wanted, end = expected_output(request, max_model_len)
        if last.end[0] in ("abort", "error"):
            assert last.end == (str(request.finish_reason), None), "(7) another end"
            assert len(last.token_ids) < len(wanted), "(7) went on after its end"
            wanted = wanted[: len(last.token_ids)]
        else:
            assert last.end == end, f"(7) end {last.end}, not {end}"
        assert last.token_ids == wanted, "(7) tokens"
        assert last.text == texts[len(wanted)], "(7) the text is not the one-shot decoding"
        if self.params.logprobs is not None:
            assert last.num_logprobs == len(wanted), "(7) logprobs"
        for read in reads[:-1]:
            certain = texts[len(read.token_ids)].rstrip(REPLACEMENT)
            late = len(certain) - len(read.text)
            assert late < LONGEST_STOP or read.end, "(7) text is held back for no reason"

    def _check_prompt(self) -> None:
        if self.params.prompt_logprobs is None:
            return
        request, entries = self.requests[0], self.outputs[-1].prompt_logprobs
        positions = [float(n) for n in range(1, request.num_prompt_tokens)]
        given = self.reported_positions
        complete = request.num_output_tokens > 0
        assert given == positions[: len(given)], "(7) prompt positions doubled or lost"
        assert not complete or given == positions, "(7) prompt positions are missing"
        assert entries is not None and entries[0] is None, "(7) the first position has no logprob"
        shown = [one.logprob for entry in entries[1:] if entry for one in entry.values()]
        assert shown == given, "(7) prompt positions of the output"


class Clients:
    """All clients of a run.

    Args:
        seed: of how they read.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(f"clients of {seed}")
        self._by_request: dict[str, tuple[Client, int]] = {}

    def __iter__(self) -> Iterator[Client]:
        return (client for client, index in self._by_request.values() if index == 0)

    def of(self, request_id: str) -> Client:
        return self._by_request[request_id][0]

    def add(self, requests: list[Request], now: float) -> None:
        """A caller's request comes, as its n sequences."""
        client = Client(requests, self._draw, now)
        for index, request in enumerate(requests):
            self._by_request[request.id] = client, index

    def on_progress(self, progress: Progress, now: float) -> str | None:
        """Take a report; the stop string that the text ends with, if any."""
        client, index = self._by_request[progress.request_id]
        assert not client.state.finished, "(7) a report after the end"
        assert len(progress.logprobs) == len(progress.new_token_ids), "(7) logprobs and tokens"
        entries = progress.prompt_logprobs
        client.reported_positions += [entry.logprobs[0] for entry in entries]
        return client.state.apply(index, progress, now)

    def read(self) -> None:
        """A step is over: those whose pace it is take what there is."""
        for client in self:
            if self._draw.random() < client.pace:
                client.read()

    def check(self, max_model_len: int) -> None:
        """All is over: everybody has got what is theirs."""
        for client in self:
            client.check(max_model_len)


def expected_output(
    request: Request, max_model_len: int
) -> tuple[list[str], list[int], tuple[str, int | str | None]]:
    """What a sequence's client gets if nothing goes wrong: nothing incremental about it.

    Returns:
        the text after each number of tokens, the tokens, and the finish and stop reason.
    """
    params = request.params
    token_ids, reason, stop_reason = reference_generation(request, max_model_len)
    silent_last = reason is FinishReason.STOP and not params.include_stop_str_in_output
    texts = [""]
    for count in range(1, len(token_ids) + 1):
        silent = silent_last and count == len(token_ids)
        texts.append(texts[-1] if silent else _one_shot(request, token_ids[:count]))
        if silent or count <= params.min_tokens:
            continue
        known, certain = (text.rstrip(REPLACEMENT) for text in texts[-2:])
        found = [
            (start + len(stop), start, stop)
            for stop in params.stop_strings
            for start in range(len(certain))
            if certain.startswith(stop, start) and start + len(stop) > len(known)
        ]
        if found:
            end, start, stop = min(found)
            texts[-1] = certain[: end if params.include_stop_str_in_output else start]
            return texts, token_ids[:count], ("stop", stop)
    return texts, token_ids, (str(reason), stop_reason)


def _one_shot(request: Request, output: list[int]) -> str:
    """What decoding adds to the prompt's text."""
    params: SamplingParams = request.params
    if not params.detokenize:
        return ""
    prompt = request.prompt_token_ids
    before, after = (
        tokenizer().decode(ids, skip_special_tokens=params.skip_special_tokens)
        for ids in (prompt, prompt + output)
    )
    pairs = zip(before, after, strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return after[common:]
