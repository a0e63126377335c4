"""An engine that answers as a recording has it, and tells where requests have drifted from it.

Which recorded request is like another, and in what they differ, is `recording`'s.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Literal

from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.engine.prompts import ParsedPrompt
from quire.errors import ConfigError, DriftError
from quire.sampling_params import SamplingParams
from quire.testing.engine import Reply, ScriptedEngine
from quire.testing.executor import Written, WrittenStep
from quire.testing.record import record
from quire.testing.recording import (
    Header,
    RecordedAnswer,
    RecordedRequest,
    changed_params,
    plain_params,
    read_recording,
)
from quire.testing.script import ScriptedRequest, describe
from quire.tokenizer import Tokenizer

Drift = Literal["strict", "nearest"]

logger = logging.getLogger(__name__)


class ReplayEngine(ScriptedEngine):
    """See `replay`.

    Attributes:
        drifts: what was asked otherwise than recorded, in words, where that is allowed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        drift: Drift = "strict",
        tokenizer: Tokenizer | str | Path | None = None,
        real_time: bool = False,
        **options: Any,
    ) -> None:
        if drift not in ("strict", "nearest"):
            raise ConfigError(f"drift must be strict or nearest, got {drift!r}", param="drift")
        self._path = Path(path)
        header, self._recorded = read_recording(self._path)
        self._times = [0] * len(self._recorded)
        self._choosing = threading.Lock()
        self._is_strict = drift == "strict"
        self.drifts: list[str] = []
        known = {
            "model": None if header.model is None else header.model.removeprefix("./"),
            "max_model_len": header.max_model_len,
            "tool_call_parser": header.tool_call_parser,
            "reasoning_parser": header.reasoning_parser,
        }
        super().__init__(
            (),
            tokenizer=tokenizer or _tokenizer_name(header, options, self._path),
            real_time=real_time,
            generation_defaults=header.defaults,
            **{**known, **options},
        )
        assert self.tokenizer is not None, "a scripted engine has one"
        if self.tokenizer.vocab_size != header.vocab_size:
            size = self.tokenizer.vocab_size
            self.close()
            raise ConfigError(
                f"{self._path} was recorded with a tokenizer of {header.vocab_size} tokens; this one has "
                f"{size}: name the same one, as tokenizer=...",
                param="tokenizer",
            )

    @property
    def unasked(self) -> list[RecordedRequest]:
        """Recorded requests that did not come; a test may assert that there are none."""
        with self._choosing:
            return [one for one, n in zip(self._recorded, self._times, strict=True) if not n]

    def _reply(
        self, request: ScriptedRequest, prompt: ParsedPrompt, params: SamplingParams
    ) -> Reply:
        recorded = self._choose(request, self._decode(prompt.token_ids, skip_special_tokens=False))
        for answer in recorded.answers:
            what = f"the answer that was recorded for {describe(request)}"
            ends = answer.finish_reason == "stop"
            end = self.eos_token_ids if ends else frozenset()
            told = [one for one in answer.token_ids if one not in end]
            self._writer.check(told, params, what, ends=False)
        return params, [_written(one, recorded.seconds) for one in recorded.answers], None

    def _choose(self, request: ScriptedRequest, text: str) -> RecordedRequest:
        """The recorded request that is the same, or the nearest one; `text` is of the prompt's tokens.

        Of several that are the same, each is taken once, in order.

        Raises:
            DriftError: there is none, and drift is not allowed.
        """
        params = plain_params(request.params)
        with self._choosing:
            same = [
                index
                for index, one in enumerate(self._recorded)
                if one.prompt == text and not changed_params(one.params, params)
            ]
            fresh = [index for index in same if not self._times[index]]
            if fresh:
                return self._use(fresh[0])
            drift = self._describe_drift(request, text, params, len(same))
            if self._is_strict or not self._recorded:
                raise DriftError(drift)
            self.drifts.append(drift)
            logger.warning("%s", drift)
            return self._use(self._nearest(text, params))

    def _use(self, index: int) -> RecordedRequest:
        self._times[index] += 1
        return self._recorded[index]

    def _nearest(self, text: str, params: dict[str, Any]) -> int:
        """The recorded request that is most like this one; of equals, one that was not asked yet."""
        return max(
            range(len(self._recorded)),
            key=lambda index: (
                *self._recorded[index].likeness(text, params),
                -self._times[index],
                -index,
            ),
        )

    def _describe_drift(
        self, request: ScriptedRequest, text: str, params: dict[str, Any], num_same: int
    ) -> str:
        name = self._path.name
        if num_same:
            return (
                f"{describe(request)}: {name} has {num_same} requests like it, and this is one more; "
                "record again"
            )
        if not self._recorded:
            return f"{describe(request)}: {name} has no requests at all; record again"
        nearest = self._nearest(text, params)
        return (
            f"{describe(request)}: {name} has no such request; the nearest one, number {nearest + 1}, "
            f"differs. If this is meant, record again.\n"
            f"{self._recorded[nearest].difference(text, params)}"
        )


def replay(
    path: str | Path,
    *,
    drift: Drift = "strict",
    tokenizer: Tokenizer | str | Path | None = None,
    real_time: bool = False,
    **options: Any,
) -> ReplayEngine:
    """An engine that gives the answers of a recording, without the model.

    A request is known by its prompt, as the model would see it, and its parameters. Requests that are the
    same get the recorded answers in order.

    Args:
        path: from `record`.
        drift: what to do about a request that was not recorded: "strict" refuses it and shows what
            changed; "nearest" answers as to the request most like it, and notes it in `drifts`.
        tokenizer: the model's; default: by the model's name in the recording. Its weights are not needed.
        real_time: recorded delays are waited for; default: they pass on the engine's `clock` alone.
        options: fields of `EngineConfig`, over those that are recorded.

    Raises:
        ConfigError: the file is no recording, or the tokenizer another one.
        ModelError: the tokenizer cannot be had.
    """
    return ReplayEngine(path, drift=drift, tokenizer=tokenizer, real_time=real_time, **options)


def recorded(
    path: str | Path,
    *,
    mode: Literal["auto", "record", "replay"] = "auto",
    drift: Drift = "strict",
    **options: Any,
) -> Engine:
    """An engine that records, or one that replays: the same line in a test for both.

    Args:
        path: of the recording.
        mode: "auto" records if there is no file yet.
        drift: as in `replay`.
        options: fields of `EngineConfig`.

    Raises: as `record` and `replay`.
    """
    if mode not in ("auto", "record", "replay"):
        raise ConfigError(f"mode must be auto, record or replay, got {mode!r}", param="mode")
    if mode == "record" or (mode == "auto" and not Path(path).exists()):
        return record(options, path)
    config = EngineConfig.from_options(**options)  # a wrong option is wrong in both modes
    if config.model is not None and config.tokenizer is None and Path(config.model).is_dir():
        options["tokenizer"] = str(config.model)
    options.pop("model", None)
    return replay(path, drift=drift, **options)


def _tokenizer_name(header: Header, options: dict[str, Any], path: Path) -> str | None:
    if options.get("tokenizer") is not None or header.model is None:
        return None
    if header.model.startswith("./"):
        raise ConfigError(
            f"{path} was recorded with a model in a folder, {header.model[2:]!r}: name that folder, or "
            "another with the same tokenizer, as tokenizer=...",
            param="tokenizer",
        )
    return header.model


def _written(answer: RecordedAnswer, seconds: tuple[float, float] | None) -> Written:
    """A recorded sequence as tokens, one in each step."""
    first, rest = seconds or (0.0, 0.0)
    count = len(answer.token_ids)
    delays = [first, *[rest / max(count - 1, 1)] * (count - 1)]
    steps = []
    for position, token_id in enumerate(answer.token_ids):
        logprob: tuple[float, dict[int, float]] = (0.0, {})
        if answer.logprobs is not None and position < len(answer.logprobs):
            (_, own), *others = answer.logprobs[position]
            logprob = own, dict(others)
        steps.append(WrittenStep((token_id,), (logprob,), delays[position]))
    error = answer.error or "the model failed on this request"
    return Written(
        steps,
        error=error if answer.finish_reason == "error" else None,
        aborts=answer.finish_reason in ("abort", "timeout"),
    )
