"""What a scripted engine is to say, and which of it a request is answered with.

It knows texts and requests, and neither tokens nor engines: how an answer becomes tokens is `writing`'s.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quire.errors import ConfigError, QuireError, ScriptError
from quire.sampling_params import SamplingParams

SHOWN = 80  # characters of a text that messages quote


@dataclass(frozen=True)
class Token:
    """A piece of an answer that comes in one step.

    Args:
        text: usually of one token; of several, they come together.
        logprob: natural logarithm of its probability.
        top: what else was likely: text -> log-probability.
        delay: seconds before it, beside those of the answer.
    """

    text: str
    logprob: float = 0.0
    top: Mapping[str, float] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(frozen=True)
class Call:
    """A call of a tool.

    Args:
        name: of the tool.
        arguments: as an object, or its JSON.
    """

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScriptedRequest:
    """A request as matchers and scripts see it.

    Args:
        index: how many requests came before it.
        prompt: as the model sees it, special tokens written out.
        params: with all defaults in them.
        messages, tools: of a chat; None: it is none.
    """

    index: int
    prompt: str
    params: SamplingParams
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    session_id: str | None = None

    @property
    def last_text(self) -> str:
        """The last message of a chat, or the prompt of what is none."""
        if not self.messages:
            return self.prompt
        content = self.messages[-1].get("content") or ""
        if isinstance(content, str):
            return content
        return "\n".join(part.get("text", "") for part in content)


When = str | re.Pattern[str] | Callable[[ScriptedRequest], bool]


@dataclass(frozen=True)
class Answer:
    """One answer of a scripted engine.

    Args:
        content: what is said: a text, of which each token is a step; or pieces, each of which is one.
        calls: of tools, after the content; written in the format of the chat template.
        reasoning: what is thought before the content.
        finish_reason: "length" is as if `max_tokens` was reached, "abort" as if somebody aborted it.
        error: raised after the content, or at once if there is none.
        delay: seconds before the first token.
        token_delay: seconds before each of the others.
        when: requests that it is for: a text in the last message (of what is no chat, in the prompt), a
            pattern found there, or a function of the request; default: the next one that no other answer
            is for.
        times: how often it is given; default: once, and with `when` without end.
    """

    content: str | Sequence[str | Token] = ""
    calls: Sequence[Call] = field(default=(), kw_only=True)
    reasoning: str | None = field(default=None, kw_only=True)
    finish_reason: Literal["stop", "length", "abort"] = field(default="stop", kw_only=True)
    error: QuireError | None = field(default=None, kw_only=True)
    delay: float = field(default=0.0, kw_only=True)
    token_delay: float = field(default=0.0, kw_only=True)
    when: When | None = field(default=None, kw_only=True)
    times: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.error is not None and not isinstance(self.error, QuireError):
            raise ConfigError(
                f"an answer's error must be a QuireError, for instance "
                f'RequestFailedError("..."); got {self.error!r}'
            )
        if self.finish_reason not in ("stop", "length", "abort"):
            raise ConfigError(
                f"finish_reason must be stop, length or abort, got {self.finish_reason!r}; for an error "
                "give error=..., for a timeout a delay"
            )
        if self.finish_reason != "stop" and self.is_empty:
            raise ConfigError(f"an answer that ends with {self.finish_reason!r} needs some content")

    @property
    def text(self) -> str:
        """Its content as one text."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def pieces(self) -> list[Token]:
        """Its content as it was given, in pieces; a text is one."""
        given = [self.content] if isinstance(self.content, str) else self.content
        return [Token(piece) if isinstance(piece, str) else piece for piece in given]

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing at all."""
        return not (self.text or self.calls or self.reasoning)

    def __str__(self) -> str:
        said = [repr(shorten(self.text))] if self.text else []
        said += [f"{call.name}(...)" for call in self.calls]
        said += [type(self.error).__name__] if self.error is not None else []
        return ", ".join(said) or "nothing"


AnswerLike = str | Answer | QuireError | Sequence[Answer]  # several: of the n sequences
Script = AnswerLike | Sequence[AnswerLike] | Callable[[ScriptedRequest], AnswerLike | None]


class ScriptReader:
    """Picks the answers to requests; safe for threads.

    Args:
        script: one answer, answers in order and by `when`, or a function of the request.

    Raises:
        ConfigError: it is none of these.
    """

    def __init__(self, script: Script) -> None:
        self._function = script if callable(script) else None
        items: Any = script
        if isinstance(script, (str, Answer, QuireError)):
            items = [script]
        elif callable(script):
            items = []
        self._answers = [as_answers(item) for item in items]
        self._given = [0] * len(self._answers)
        self._lock = threading.Lock()

    def choose(self, request: ScriptedRequest) -> Sequence[Answer]:
        """The answers to a request's sequences, in order; if they are fewer, they are given again.

        Raises:
            ScriptError: there is none for it.
        """
        if self._function is not None:
            made = self._function(request)
            if made is None:
                raise ScriptError(f"the script has no answer to {describe(request)}: it gave None")
            return as_answers(made)
        with self._lock:
            for matched in (True, False):
                for index, answers in enumerate(self._answers):
                    if (answers[0].when is not None) is matched and self._fits(index, request):
                        self._given[index] += 1
                        return answers
        raise ScriptError(
            f"the script has no answer to {describe(request)}. It has: {self._listing()}. "
            "Add an answer, or one with when=..."
        )

    def unused(self) -> list[Answer]:
        """Answers that were not given as often as they were to be (with `when` alone: not once)."""
        with self._lock:
            return [
                answers[0]
                for answers, given in zip(self._answers, self._given, strict=True)
                if given < (answers[0].times or 1)
            ]

    def _fits(self, index: int, request: ScriptedRequest) -> bool:
        answer = self._answers[index][0]
        times = answer.times if answer.times is not None or answer.when is not None else 1
        if times is not None and self._given[index] >= times:
            return False
        match answer.when:
            case None:
                return True
            case str(text):
                return text in request.last_text
            case re.Pattern() as pattern:
                return pattern.search(request.last_text) is not None
            case function:
                return bool(function(request))

    def _listing(self) -> str:
        if not self._answers:
            return "nothing at all"
        lines = []
        for number, (answers, given) in enumerate(zip(self._answers, self._given, strict=True), 1):
            when = answers[0].when
            rule = "" if when is None else f" when {getattr(when, 'pattern', when)!r}"
            lines.append(f"{number}. {answers[0]}{rule} (given {given} times)")
        return "; ".join(lines)


def as_answers(given: Any) -> Sequence[Answer]:
    """The answers that a script's item stands for.

    Raises:
        ConfigError: none.
    """
    if isinstance(given, str):
        return [Answer(given)]
    if isinstance(given, QuireError):
        return [Answer(error=given)]
    if isinstance(given, Answer):
        return [given]
    if isinstance(given, Sequence) and given and all(isinstance(one, Answer) for one in given):
        return list(given)
    raise ConfigError(
        "a script has texts, Answers, QuireErrors, lists of Answers (of n sequences), or is a function that "
        f"returns one of these; got {given!r}"
    )


def describe(request: ScriptedRequest) -> str:
    """A request in a few words."""
    said = "its last message is" if request.messages else "its prompt ends with"
    return f"request {request.index + 1}; {said} {shorten(request.last_text, from_end=True)!r}"


def shorten(text: str, *, from_end: bool = False) -> str:
    """The text, or its beginning or end."""
    if len(text) <= SHOWN:
        return text
    return "..." + text[-SHOWN:] if from_end else text[:SHOWN] + "..."
