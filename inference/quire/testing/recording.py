"""A recording: what an engine was asked and answered, as a file of JSON lines.

    {"quire_recording": 1, "model": null, "max_model_len": 2048, ...}
    {"params": {"max_tokens": 128}}                      a request begins
    {"prompt": "<|im_start|>user\\n"}                     its prompt, line by line, special tokens written out
    {"prompt": "What is the weather?<|im_end|>\\n"}
    {"answer": "stop", "token_ids": [520, 296, 2]}       one for each of its sequences, with its finish_reason
    {"text": "It is warm.<|im_end|>"}                    what these ids say, line by line: for readers alone
    {"logprobs": [[[520, -0.1], [17, -2.3]], ...]}       where they were asked for; the token itself first

A line of a prompt is a line of the file, so that version control shows what changed. It knows the format and
which request is like another, and no engine.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.errors import ConfigError
from quire.sampling_params import SamplingParams
from quire.structured_outputs import StructuredOutputsParams

VERSION = 1
MOST_DIFF_LINES = 60
UNCOMPARED = ("output_kind",)  # how an answer is read does not change it


@dataclass(frozen=True, slots=True)
class Header:
    """What a recording says of the engine.

    Args:
        model: hub name; `./name` for a folder; None: the bundled model.
        max_model_len: its context, in tokens.
        vocab_size: of its tokenizer.
        defaults: of sampling parameters, by the model's files.
        tool_call_parser, reasoning_parser: as the engine's options.
    """

    model: str | None
    max_model_len: int
    vocab_size: int
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None

    def line(self) -> str:
        """As the first line of a file."""
        return _line({"quire_recording": VERSION, **dataclasses.asdict(self)})


@dataclass(slots=True)
class RecordedAnswer:
    """One sequence.

    Args:
        finish_reason: as of `CompletionOutput`.
        token_ids: as they were generated, the end of sequence included.
        text: of these.
        logprobs: for each token its id and log-probability, then those of others.
        error: with finish_reason "error".
    """

    finish_reason: str
    token_ids: list[int]
    text: str = ""
    logprobs: list[list[tuple[int, float]]] | None = None
    error: str | None = None


@dataclass(slots=True)
class RecordedRequest:
    """One request.

    Args:
        prompt: as the model saw it, special tokens written out.
        params: that are not defaults, in plain types.
        answers: one for each sequence.
        seconds: to the first token, and from there to the last; None: not asked for.
    """

    prompt: str
    params: dict[str, Any]
    answers: list[RecordedAnswer] = field(default_factory=list)
    seconds: tuple[float, float] | None = None

    def lines(self) -> Iterator[str]:
        """As lines of a file."""
        first: dict[str, Any] = {"params": self.params}
        if self.seconds is not None:
            first["seconds"] = self.seconds
        yield _line(first)
        for line in self.prompt.splitlines(keepends=True):
            yield _line({"prompt": line})
        for answer in self.answers:
            end: dict[str, Any] = {"answer": answer.finish_reason}
            if answer.error is not None:
                end["error"] = answer.error
            yield _line({**end, "token_ids": answer.token_ids})
            for line in answer.text.splitlines(keepends=True):
                yield _line({"text": line})
            if answer.logprobs is not None:
                yield _line({"logprobs": answer.logprobs})

    def likeness(self, prompt: str, params: Mapping[str, Any]) -> tuple[float, bool]:
        """How much a request is like this one, for comparison: by its prompt, then by its parameters."""
        alike = _common(self.prompt, prompt)
        alike += _common(self.prompt[alike:][::-1], prompt[alike:][::-1])
        longest = max(len(self.prompt), len(prompt), 1)
        return alike / longest, not changed_params(self.params, params)

    def difference(self, prompt: str, params: Mapping[str, Any]) -> str:
        """What a request has otherwise, in words and as a unified diff of the prompts."""
        lines = changed_params(self.params, params)
        diff = list(
            difflib.unified_diff(
                self.prompt.splitlines(),
                prompt.splitlines(),
                "recorded prompt",
                "prompt now",
                lineterm="",
            )
        )
        more = len(diff) - MOST_DIFF_LINES
        lines += diff[:MOST_DIFF_LINES]
        return "\n".join([*lines, f"... and {more} lines more"] if more > 0 else lines)


def plain_params(params: SamplingParams) -> dict[str, Any]:
    """What of the parameters is no default, in types that JSON has.

    Of a grammar only that there is one: a chat's is made of the tools, which its prompt shows, and what is
    replayed is held to it in any case.
    """
    return {
        one.name: _plain(getattr(params, one.name))
        for one in dataclasses.fields(params)
        if one.name not in UNCOMPARED and getattr(params, one.name) != one.default
    }


def changed_params(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The parameters that differ, each in words."""
    changed = []
    for name in sorted(recorded.keys() | now.keys()):
        if recorded.get(name, ...) != now.get(name, ...):
            before = repr(recorded[name]) if name in recorded else "not set"
            after = repr(now[name]) if name in now else "not set"
            changed.append(f"{name} was {before}, and is {after}")
    return changed


def read_recording(path: Path) -> tuple[Header, list[RecordedRequest]]:
    """All of a file.

    Raises:
        ConfigError: there is none, or it is no recording, saying in which line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the recording {path} cannot be read: {error.strerror}; make it with "
            "quire.testing.record"
        ) from error
    header: Header | None = None
    requests: list[RecordedRequest] = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            entry = json.loads(line)
            if header is None:
                header = _header(entry)
            else:
                _take(requests, entry)
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"line {number} of {path} is none of a recording of version {VERSION}: {error}"
            ) from error
    if header is None:
        raise ConfigError(f"the recording {path} is empty; delete it, and record again")
    return header, requests


def _header(entry: dict[str, Any]) -> Header:
    if entry.pop("quire_recording") != VERSION:
        raise ValueError("it is of another version; record again")
    return Header(**entry)


def _take(requests: list[RecordedRequest], entry: dict[str, Any]) -> None:
    """Add what a line says to the requests."""
    match entry:
        case {"params": dict(params)}:
            seconds = entry.get("seconds")
            requests.append(RecordedRequest("", params, [], seconds and (seconds[0], seconds[1])))
        case {"prompt": str(line)}:
            requests[-1].prompt += line
        case {"answer": str(reason), "token_ids": list(ids)}:
            requests[-1].answers.append(RecordedAnswer(reason, ids, error=entry.get("error")))
        case {"text": str(line)}:
            requests[-1].answers[-1].text += line
        case {"logprobs": list(entries)}:
            requests[-1].answers[-1].logprobs = [
                [(token_id, logprob) for token_id, logprob in position] for position in entries
            ]
        case _:
            raise ValueError(f"unknown entry {entry!r:.100}")


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _common(first: str, second: str) -> int:
    """Length of the longest common beginning."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # by halves: prompts are long, and slices are compared fast
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _plain(value: Any) -> Any:
    """A value in types that JSON has, the same after it was written and read."""
    if isinstance(value, StructuredOutputsParams):
        given = {
            one.name: _plain(getattr(value, one.name))
            for one in dataclasses.fields(value)
            if getattr(value, one.name) != one.default
        }
        return {**given, "grammar": "..."} if "grammar" in given else given
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
