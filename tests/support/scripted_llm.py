"""A stand-in for `quire.LLM` that answers from a script, for tests of what is built on its interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from quire.outputs import CompletionOutput, RequestOutput
from quire.sampling_params import SamplingParams

Answer = Callable[[Any], Iterable[Any]]


def echo(asked: Any) -> str:
    """Answer with the prompt, or the last message, in capitals."""
    return (asked if isinstance(asked, str) else asked[-1]["content"]).upper()


class ScriptedLLM:
    """Answers what `answer(prompt or messages)` returns: a text, or pieces of one to stream.

    A piece that is an exception is raised where it stands. Everything that was asked is kept, and so is
    how many streams were closed before their end.
    """

    def __init__(self, answer: Answer = echo, **options: Any) -> None:
        self.answer = answer
        self.options = options
        self.asked: list[tuple[Any, SamplingParams]] = []
        self.num_closed_streams = 0
        self.closed = False

    def __enter__(self) -> ScriptedLLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed = True

    def generate(
        self, prompts: Sequence[str], sampling_params: SamplingParams, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        outputs = []
        for prompt in prompts:
            text = "".join(self._pieces(prompt, sampling_params))
            completions = [_completion(index, text) for index in range(sampling_params.n)]
            outputs.append(RequestOutput("0", prompt, [1], outputs=completions, finished=True))
        return outputs

    def stream(self, prompt: str, sampling_params: SamplingParams) -> Iterator[RequestOutput]:
        return self._stream(prompt, sampling_params)

    def stream_chat(
        self, messages: list[dict[str, str]], sampling_params: SamplingParams
    ) -> Iterator[RequestOutput]:
        return self._stream([dict(message) for message in messages], sampling_params)

    def _stream(self, asked: Any, params: SamplingParams) -> Iterator[RequestOutput]:
        finished = False
        try:
            for piece in self._pieces(asked, params):
                yield RequestOutput("0", None, [1], outputs=[_completion(0, piece)])
            finished = True
        finally:
            self.num_closed_streams += not finished

    def _pieces(self, asked: Any, params: SamplingParams) -> Iterator[str]:
        self.asked.append((asked, params))
        answer = self.answer(asked)
        for piece in answer:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


def _completion(index: int, text: str) -> CompletionOutput:
    return CompletionOutput(index, text, [ord(letter) for letter in text], finish_reason="stop")
