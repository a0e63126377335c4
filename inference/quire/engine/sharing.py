"""Engines that several faces use together.

Faces that ask for the same model with the same options share one engine: weights and KV cache are in
memory once, and all requests run in one batch. It is closed when the last face lets go of it. This
table is the one thing in quire that is global to the process.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import weakref
from pathlib import Path
from typing import Any

from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.errors import EngineClosedError, EngineDeadError
from quire.hub import bundled_model

_lock = threading.Lock()  # guards the two tables
_engines: dict[str, Engine] = {}
_holders: dict[str, int] = {}
_let_go: queue.SimpleQueue[tuple[str, Engine]] = queue.SimpleQueue()


class EngineHandle:
    """One face's hold on an engine.

    Args:
        owner: the face; when it is collected, or at exit, the hold is released.
        engine: an engine that its maker closes; default: a shared one for `options`.
        options: fields of `EngineConfig`.
    """

    def __init__(self, owner: object, engine: Engine | None, options: dict[str, Any]) -> None:
        self._face = type(owner).__name__
        self._release: weakref.finalize[..., object] | None = None
        self._engine: Engine | None = engine
        if engine is not None:
            return
        config = EngineConfig.from_options(**options)
        key = _key(config)
        self._engine = _acquire(key, config)
        self._release = weakref.finalize(owner, _release, key, self._engine)

    @property
    def engine(self) -> Engine:
        """The engine; raises EngineClosedError once it was let go of, whoever else still holds it."""
        if self._engine is None:
            raise EngineClosedError(f"this {self._face} was closed; make a new one")
        return self._engine

    def release(self) -> None:
        """Let go of the engine; a second call does nothing."""
        self._engine = None
        if self._release is not None:
            self._release()
            _settle(wait=True)


def _key(config: EngineConfig) -> str:
    """The same for options that ask for the same, however they are written."""
    options = dataclasses.asdict(config)
    options["model"] = _place(bundled_model() if config.model is None else config.model)
    if config.tokenizer is not None:
        options["tokenizer"] = _place(config.tokenizer)
        own = (options["model"], config.revision)
        if (options["tokenizer"], config.tokenizer_revision) == own:
            options["tokenizer"] = options["tokenizer_revision"] = None
    return json.dumps(options, sort_keys=True, default=str)


def _place(name: str | Path) -> str:
    """A folder by its one path; any other name is one of a repository."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else str(name)


def _acquire(key: str, config: EngineConfig) -> Engine:
    try:
        with _lock:
            engine = _engines.get(key)
            if engine is not None:
                try:
                    engine.check_health()
                except EngineDeadError:
                    engine = None
            if engine is None:
                engine = _engines[key] = Engine(config)
                _holders[key] = 0
            _holders[key] += 1
            return engine
    finally:
        _settle(wait=False)


def _release(key: str, engine: Engine) -> None:
    """A face lets go. It may be collected at any moment, on any thread, within any lock: never wait."""
    _let_go.put((key, engine))
    _settle(wait=False)


def _settle(*, wait: bool) -> None:
    """Close what nobody holds any more. If the lock is taken, whoever has it comes here after it."""
    while not _let_go.empty() and _lock.acquire(blocking=wait):
        unused = []
        try:
            while not _let_go.empty():
                key, engine = _let_go.get()
                if _engines.get(key) is not engine:  # it died, and another has taken its place
                    continue
                _holders[key] -= 1
                if not _holders[key]:
                    unused.append(engine)
                    del _engines[key], _holders[key]
        finally:
            _lock.release()
        for engine in unused:
            engine.close()
