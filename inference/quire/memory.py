"""The memory that the engines of this process hold, and the one budget that they share.

    quire.memory_budget("6 GiB")     # weights and KV caches of all engines together, from now on

Owns the count and the rule of who gets what. It takes no memory itself: an executor says what it is about to
take, and gives it back when it is closed.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from types import EllipsisType

from quire.errors import ConfigError, DeviceMemoryError

# By the standard KiB is 1024 bytes and kB is 1000; a bare K is taken for KiB, as memory is counted by it.
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?B?)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What one engine holds, in bytes."""

    model: str
    weights: int = 0
    kv_cache: int = 0


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """The budget as it stands, in bytes.

    Args:
        total: None: there is none.
        engines: in the order of their making.
    """

    total: int | None
    engines: tuple[EngineMemory, ...]

    @property
    def used(self) -> int:
        """By all engines."""
        return sum(one.weights + one.kv_cache for one in self.engines)

    @property
    def left(self) -> int | None:
        """For further ones; None: without bound. Below 0 if the budget was made smaller than what is held."""
        return None if self.total is None else self.total - self.used

    def __str__(self) -> str:
        head = "no budget" if self.total is None else f"a budget of {gib(self.total)}"
        held = (
            f"{one.model} holds {gib(one.weights)} of weights and {gib(one.kv_cache)} of KV cache"
            for one in self.engines
        )
        return "; ".join([f"{head}, {gib(self.used)} used", *held])


def memory_budget(total: int | str | EllipsisType | None = ...) -> MemoryBudget:
    """State how much memory the engines of this process may hold together, or look at it.

    It holds from now on, for engines that are there and for those to come. Of what the weights leave, an
    engine's KV cache gets half, so that others can come after it, and no less than one request of full length
    needs; `kv_cache_memory_bytes` is kept to instead where it is set. An engine that is closed gives back.

    Args:
        total: bytes, or a text such as "6 GiB" or "800 MB"; None: no budget, as at the start. Left out:
            nothing is changed.

    Returns:
        The budget, and what each engine holds of it.

    Raises:
        ConfigError: `total` is no size. Engines that do not fit raise DeviceMemoryError when they are made.
    """
    if not isinstance(total, EllipsisType):
        _ledger.limit(None if total is None else _bytes(total))
    return _ledger.look()


class MemoryClaim:
    """What one engine holds and will hold. As a context manager it is released by an exception.

    Args:
        model: the name for messages.
    """

    def __init__(self, model: str) -> None:
        self._held = EngineMemory(model)

    def take_weights(self, size: int) -> None:
        """Raises DeviceMemoryError where `size` bytes are not left."""
        self._held = replace(self._held, weights=size)
        _ledger.put(self, self._held)

    def cache_size(self, least: int) -> int | None:
        """Bytes that the KV cache should have; None: there is no budget.

        Args:
            least: bytes that one request of full length needs.

        Raises:
            DeviceMemoryError: not even these are left.
        """
        left = _ledger.look().left
        if left is None:
            return None
        if left < least:
            raise _no_room(_ledger.look(), f"the KV cache of {self._held.model}", least)
        return max(left // 2, least)

    def take_cache(self, size: int) -> None:
        """Raises DeviceMemoryError where `size` bytes are not left."""
        self._held = replace(self._held, kv_cache=size)
        _ledger.put(self, self._held)

    def release(self) -> None:
        """Give everything back; a second call does nothing."""
        _ledger.drop(self)

    def __enter__(self) -> MemoryClaim:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self.release()

    def __del__(self) -> None:
        self.release()


class _Ledger:
    """All claims by their id, so that it keeps none of them alive."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a claim may be collected in here
        self._total: int | None = None
        self._held: dict[int, EngineMemory] = {}

    def limit(self, total: int | None) -> None:
        with self._lock:
            self._total = total

    def look(self) -> MemoryBudget:
        with self._lock:
            return MemoryBudget(self._total, tuple(self._held.values()))

    def put(self, claim: MemoryClaim, held: EngineMemory) -> None:
        """Note what a claim is going to hold; raises DeviceMemoryError, and notes nothing, if it cannot."""
        with self._lock:
            before = self._held.get(id(claim), EngineMemory(held.model))
            more = held.weights + held.kv_cache - before.weights - before.kv_cache
            budget = self.look()
            if budget.left is not None and more > max(budget.left, 0):
                part = "weights" if held.weights > before.weights else "KV cache"
                raise _no_room(budget, f"the {part} of {held.model}", more)
            self._held[id(claim)] = held

    def drop(self, claim: MemoryClaim) -> None:
        with self._lock:
            self._held.pop(id(claim), None)


_ledger = _Ledger()


def _no_room(budget: MemoryBudget, what: str, size: int) -> DeviceMemoryError:
    assert budget.left is not None
    return DeviceMemoryError(
        f"{what} would take {gib(size)}, but {gib(max(budget.left, 0))} are left of {budget}. Close "
        "an engine, raise quire.memory_budget, take a smaller model or dtype, or lower max_model_len or "
        "the kv_cache_memory_bytes of the engines",
        param="memory_budget",
    )


def gib(size: int) -> str:
    """A number of bytes for people: in GiB, or in MiB where it is little."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def _bytes(total: int | str) -> int:
    size: float = -1
    if isinstance(total, str):
        match = _SIZE.fullmatch(total)
        if match is not None:
            base = 1000 if match[3].upper() == "B" and match[2] else 1024
            size = float(match[1]) * base ** _POWERS[match[2].upper()]
    elif isinstance(total, int) and not isinstance(total, bool):
        size = total
    if size < 1:
        raise ConfigError(
            f"memory_budget must be a number of bytes above 0, or a text such as '6 GiB'; got {total!r}",
            param="memory_budget",
        )
    return int(size)
