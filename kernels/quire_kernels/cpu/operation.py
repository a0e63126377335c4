"""A call of a compiled operation, and records of such calls that run again without Python.

Every operation of the compiled side takes one structure of 8-byte numbers and addresses. So a call is a
function and some bytes, and a list of calls, made by running a model once, is all that a step needs: a
`Program`. It holds for steps of the same shapes whose inputs lie where they lay, and does what the model
did, in the same order, on the same memory.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch.overrides import TorchFunctionMode, resolve_name

from quire_kernels.cpu.build import library

KINDS = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}

_recording: ContextVar[Recording | None] = ContextVar("recording", default=None)


class Operation:
    """One function of the compiled library.

    Args:
        name: its name there.
        arguments: the fields of its structure, in order: `x` a whole number, `x*` an address (0: none),
            `x.` a float.
    """

    def __init__(self, name: str, arguments: str) -> None:
        kinds = {"*": "P", ".": "d"}
        self._name = name
        self._pack = struct.Struct(
            "@" + "".join(kinds.get(field[-1], "q") for field in arguments.split())
        ).pack

    @functools.cached_property
    def _function(self) -> ctypes._NamedFuncPointer:
        function: ctypes._NamedFuncPointer = library()[self._name]
        function.argtypes = [ctypes.c_char_p]
        function.restype = ctypes.c_int64
        return function

    def __call__(self, *values: float) -> int:
        """Run it; returns what it returns, 0 where that means nothing."""
        arguments = self._pack(*values)
        recording = _recording.get()
        if recording is not None:
            recording.add(self._function, arguments)
        result: int = self._function(arguments)
        return result


def empty(shape: tuple[int, ...] | torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Memory for an operation's result."""
    recording = _recording.get()
    return torch.empty(shape, dtype=dtype) if recording is None else recording.empty(shape, dtype)


class Program:
    """Recorded calls. The tensors they work on must live as long as it does.

    Args:
        calls: functions and their arguments.
        memory: what they work in besides.
    """

    def __init__(self, calls: list[tuple[int, bytes]], memory: object) -> None:
        self._arguments = [ctypes.create_string_buffer(data, len(data)) for _, data in calls]
        self._memory = memory
        self._count = len(calls)
        self._calls = (ctypes.c_void_p * (2 * len(calls)))()
        for i, (function, _) in enumerate(calls):
            self._calls[2 * i] = function
            self._calls[2 * i + 1] = ctypes.addressof(self._arguments[i])
        self._run = library().quire_run
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        self._run.restype = None

    def run(self) -> None:
        """Do all calls again."""
        self._run(self._calls, self._count)


class Recording(TorchFunctionMode):
    """Takes down what is called while it is active, in this thread.

    Args:
        arena: memory for results, shared with programs that never run at the same time.

    Attributes:
        foreign: an operation that computes and is not ours, so that the record is not whole; or None.
    """

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self.foreign: str | None = None
        self._arena = arena
        self._calls: list[tuple[int, bytes]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        name = (resolve_name(func) or repr(func)).removesuffix(".__get__").rpartition(".")[2]
        if name not in _LOOKS and not (name in _VIEWS and _same_memory(args[0], result)):
            self.foreign = name
        return result

    def add(self, function: ctypes._NamedFuncPointer, arguments: bytes) -> None:
        """A call that is about to run."""
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        self._calls.append((address, arguments))

    def empty(self, shape: tuple[int, ...] | torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """Memory that is taken again when nothing refers to the tensor any more."""
        return self._arena.empty(shape, dtype)

    def program(self) -> Program:
        """What was recorded; `foreign` must be None."""
        assert self.foreign is None
        return Program(self._calls, self._arena.memory)


@contextmanager
def recording(arena: Arena) -> Iterator[Recording]:
    """Record this thread's operations."""
    record = Recording(arena)
    token = _recording.set(record)
    try:
        with record:
            yield record
    finally:
        _recording.reset(token)


class Arena:
    """Memory given out first fit, and taken back when a tensor dies.

    Args:
        size: in bytes; more than that is taken from elsewhere, and kept.
    """

    LINE = 64  # bytes; where each tensor begins

    def __init__(self, size: int) -> None:
        self.memory: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = [np.empty(size, np.uint8)]
        self._taken: dict[int, int] = {}  # first line -> line past the last

    def empty(self, shape: tuple[int, ...] | torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """A tensor; one that finds no room gets memory of its own, for good."""
        size = int(np.prod(shape)) * dtype.itemsize
        lines = -(-size // self.LINE)
        first = 0
        for begin, end in sorted(self._taken.items()):
            if begin - first >= lines:
                break
            first = end
        memory = self.memory[0]
        offset = -memory.ctypes.data % self.LINE + first * self.LINE
        if offset + size > len(memory):
            self.memory.append(np.empty(size, np.uint8))
            array = self.memory[-1][:]
        else:
            self._taken[first] = first + lines
            array = memory[offset : offset + size]
            weakref.finalize(array, self._taken.pop, first)
        return torch.from_numpy(array).view(dtype).view(shape)


# What may be asked of a tensor between operations: its properties, and views of it. Everything else that
# torch does is taken for a computation that a record would miss.
_LOOKS = frozenset({
    "data_ptr", "device", "dim", "dtype", "is_contiguous", "is_cpu", "layout", "ndim", "numel",
    "requires_grad", "shape", "size", "storage_offset", "stride",
})  # fmt: skip
_VIEWS = frozenset({
    "__getitem__", "chunk", "contiguous", "data", "flatten", "narrow", "reshape", "split", "squeeze", "to",
    "unflatten", "unsqueeze", "view",
})  # fmt: skip


def _same_memory(tensor: torch.Tensor, views: torch.Tensor | Sequence[torch.Tensor]) -> bool:
    """Whether the results are parts of a tensor, so that nothing was computed."""
    start = tensor.untyped_storage().data_ptr()
    parts = [views] if isinstance(views, torch.Tensor) else views
    return all(part.untyped_storage().data_ptr() == start for part in parts)
