"""The tensors of a checkpoint, one after the other, out of whichever files hold them.

It knows file formats and nothing of models. Tensors of safetensors files are read when the caller asks for
their rows, a few at a time: going through a memory map instead takes ten times as long, a fault for every
few pages.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from quire.errors import WeightsError
from quire.quant.weight import CHUNK

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


_DTYPES = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool, "U8": torch.uint8,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
}  # fmt: skip


class FileTensor:
    """A tensor that lies in a file. Slices are read as they are asked for.

    Args:
        file: open for reading, without a buffer.
        offset: where it begins, in bytes.
        shape: its shape.
        dtype: its dtype.
        buffer: uint8; what slices are read into, if they fit, until the next one is.
    """

    def __init__(
        self,
        file: io.RawIOBase,
        offset: int,
        shape: torch.Size,
        dtype: torch.dtype,
        buffer: torch.Tensor,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._file = file
        self._offset = offset
        self._buffer = buffer

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> torch.Tensor:
        if not self.shape:
            return self._read(0, self.shape)
        start, stop, _ = rows.indices(len(self))
        shape = torch.Size([stop - start, *self.shape[1:]])
        return self._read(start * math.prod(self.shape[1:]) * self.dtype.itemsize, shape)

    def _read(self, offset: int, shape: torch.Size) -> torch.Tensor:
        size = math.prod(shape) * self.dtype.itemsize
        fits = size <= len(self._buffer)
        memory = self._buffer[:size] if fits else torch.empty(size, dtype=torch.uint8)
        view = memoryview(memory.numpy().data)
        self._file.seek(self._offset + offset)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise OSError("it ends before its last tensor does")
            view = view[count:]
        return memory.view(self.dtype).view(shape)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint, under its name there, and the file it stands in."""

    name: str
    tensor: torch.Tensor | FileTensor
    file: Path


def weight_files(folder: Path, load_format: str = "auto") -> list[Path]:
    """Files that hold a checkpoint's weights; safetensors where there are any.

    Args:
        folder: of the checkpoint.
        load_format: "safetensors" or "pt" for these files alone, "auto" for either.

    Raises:
        WeightsError: there are none, or an index names a file that is not in the folder.
    """
    names = {"auto": SAFETENSORS + PICKLED, "safetensors": SAFETENSORS, "pt": PICKLED}[load_format]
    for name in names:
        file = folder / name
        if file.is_file():
            return _files_of_index(file) if name.endswith(".json") else [file]
    raise WeightsError(
        f"no weights in {folder}: it has none of {', '.join(names)}. Check that the folder is that of a "
        "whole model, or load random weights with load_format='dummy'"
    )


def read_tensors(files: list[Path]) -> Iterator[StoredTensor]:
    """Every tensor of the files.

    Raises:
        WeightsError: a file is damaged, or no weights file at all.
    """
    for file in files:
        yield from _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)


def _files_of_index(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(
            f"{index} is no index of weights ({type(error).__name__}: {error}); download it again"
        ) from error
    files = []
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise WeightsError(f"{index} names {name!r}, which lies outside of the folder; refused")
        if not name.endswith((".safetensors", ".bin")):
            raise WeightsError(f"{index} names {name!r}, which is no file of weights")
        file = index.parent / name
        if not file.is_file():
            raise WeightsError(
                f"{file} is missing: {index.name} lists it. Download the model again"
            )
        files.append(file)
    return files


def _read_safetensors(file: Path) -> Iterator[StoredTensor]:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:  # checks what the header says
            names = opened.offset_keys()
        with file.open("rb", buffering=0) as raw:
            size = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(size))
            buffer = torch.empty(CHUNK, dtype=torch.uint8)
            for name in names:
                about = header[name]
                if about["dtype"] not in _DTYPES:
                    raise WeightsError(
                        f"{name} in {file} is of {about['dtype']}, which quire has not"
                    )
                offset = 8 + size + about["data_offsets"][0]
                shape, dtype = torch.Size(about["shape"]), _DTYPES[about["dtype"]]
                yield StoredTensor(name, FileTensor(raw, offset, shape, dtype, buffer), file)
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error


def _read_pickled(file: Path) -> Iterator[StoredTensor]:
    try:
        # Only files of torch >= 1.6 are zip archives, which can be mapped into memory.
        mapped = zipfile.is_zipfile(file)
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(tensors, dict):
        raise WeightsError(f"{file} holds a {type(tensors).__name__}, not tensors by name")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsError(f"{file} holds a {type(tensor).__name__} under {name!r}, no tensor")
        yield StoredTensor(name, tensor, file)


def _unreadable(file: Path, error: Exception) -> WeightsError:
    with file.open("rb") as opened:
        pointer = opened.read(40).startswith(b"version https://git-lfs")
    if pointer:
        return WeightsError(
            f"{file} is a pointer of git-lfs, not the weights: run `git lfs pull` there"
        )
    if isinstance(error, pickle.UnpicklingError):
        return WeightsError(
            f"{file} holds more than tensors and was not read, since that could run code of its "
            f"author: {error}"
        )
    return WeightsError(f"{file} cannot be read ({error}); it may be damaged: download it again")
