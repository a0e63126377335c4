"""Writes down what an engine is asked and answers, while it is used.

It listens to the engine's steps and to the ends of requests; a request is written when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.engine.loop import sequence_ids
from quire.engine.records import RequestRecord
from quire.errors import ConfigError
from quire.plan import Admission, StepPlan, StepResult
from quire.testing.recording import Header, RecordedAnswer, RecordedRequest, plain_params

DIGITS = 6  # of log-probabilities and seconds


def record(
    engine: Engine | EngineConfig | Mapping[str, Any] | None,
    path: str | Path,
    *,
    timing: bool = False,
) -> Engine:
    """Record what an engine is asked and answers into a file, which `replay` reads.

    Args:
        engine: an engine, which may be in use; or the options of one to be made.
        path: of the file; one that is there is replaced.
        timing: also how long answers took; else recordings of equal answers are equal.

    Returns:
        the engine. The file is whole when it is closed.

    Raises:
        ConfigError: the file cannot be written, or the engine has no tokenizer.
        QuireError: as `Engine`.
    """
    if not isinstance(engine, Engine):
        if not isinstance(engine, EngineConfig):
            engine = EngineConfig.from_options(**(engine or {}))
        engine = Engine(engine)
    recorder = Recorder(engine, Path(path), timing=timing)
    engine.add_step_listener(recorder.on_step)
    engine.add_listener(recorder)
    return engine


@dataclass(slots=True)
class _Sequence:
    """What came of one sequence so far."""

    admission: Admission
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[list[tuple[int, float]]] = field(default_factory=list)


class Recorder:
    """Listens to one engine; see `record`."""

    def __init__(self, engine: Engine, path: Path, *, timing: bool) -> None:
        if engine.tokenizer is None:
            raise ConfigError("what has no tokenizer cannot be recorded: skip_tokenizer_init=True")
        self._tokenizer = engine.tokenizer
        self._path = path
        self._timing = timing
        self._sequences: dict[str, _Sequence] = {}
        config = engine.config
        header = Header(
            model=_name(config.model),
            max_model_len=engine.max_model_len,
            vocab_size=engine.tokenizer.vocab_size,
            defaults=dict(engine.facts.generation_defaults),
            tool_call_parser=config.tool_call_parser,
            reasoning_parser=config.reasoning_parser,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(header.line(), encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"the recording {path} cannot be written: {error.strerror}"
            ) from error

    def on_step(self, plan: StepPlan, result: StepResult) -> None:
        """On the engine's thread: note the tokens of a step."""
        for admission in plan.admitted:
            if admission.pooling is None:
                self._sequences.setdefault(admission.request_id, _Sequence(admission))
        for sequence_id, token_ids in result.tokens.items():
            sequence = self._sequences.get(sequence_id)
            if sequence is None:  # it began before the recording
                continue
            sequence.token_ids += token_ids
            for entry in result.logprobs.get(sequence_id, ()):
                values = (round(value, DIGITS) for value in entry.logprobs)
                pairs = dict(zip(entry.token_ids, values, strict=True))  # the token itself once
                sequence.logprobs.append(list(pairs.items()))

    def on_finish(self, record: RequestRecord) -> None:
        """On a listener's thread: write a request that has ended."""
        ids = sequence_ids(record.request_id, len(record.finish_reasons))
        sequences = [self._sequences.pop(one, None) for one in ids]
        begun = [one for one in sequences if one is not None]
        if not begun:
            return
        prompt = begun[0].admission
        request = RecordedRequest(
            self._text(prompt.token_ids[: prompt.num_prompt_tokens]),
            plain_params(record.params),
            [
                self._answer(sequence, reason, record)
                for sequence, reason in zip(sequences, record.finish_reasons, strict=True)
            ],
            self._seconds(record),
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(request.lines())

    def _answer(
        self, sequence: _Sequence | None, reason: str, record: RequestRecord
    ) -> RecordedAnswer:
        token_ids = [] if sequence is None else sequence.token_ids
        asked = record.params.logprobs is not None
        return RecordedAnswer(
            reason,
            token_ids,
            self._text(token_ids),
            sequence.logprobs if asked and sequence is not None else None,
            record.error if reason == "error" else None,
        )

    def _seconds(self, record: RequestRecord) -> tuple[float, float] | None:
        metrics = record.metrics
        if not self._timing or metrics.time_to_first_token is None:
            return None
        return round(metrics.time_to_first_token, DIGITS), round(metrics.decode_time or 0.0, DIGITS)

    def _text(self, token_ids: tuple[int, ...] | list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)


def _name(model: str | None) -> str | None:
    """A model's name without what is true of one machine alone."""
    if model is None:
        return None
    path = Path(model).expanduser()
    return f"./{path.resolve().name}" if path.is_dir() else model
