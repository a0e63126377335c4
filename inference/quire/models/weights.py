"""The tensors of a checkpoint, one after the other, out of whichever files hold them.

It knows file formats and nothing of models. Tensors of safetensors files are views of the file's memory
map: nothing is copied before the caller does.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from quire.errors import WeightsError

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
# Bytes of a safetensors file that are mapped into memory until the map is given back.
WINDOW = 64 << 20

PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint, under its name there, and the file it stands in."""

    name: str
    tensor: torch.Tensor
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
        with safe_open(file, framework="pt", device="cpu") as opened:
            names = list(opened.keys())
        while names:
            # A map of its own for every few tensors: what was read goes out of memory with its map.
            with safe_open(file, framework="pt", device="cpu") as opened:
                mapped = 0
                while names and mapped < WINDOW:
                    name = names.pop(0)
                    tensor = opened.get_tensor(name)
                    mapped += tensor.nbytes
                    yield StoredTensor(name, tensor, file)
                    del tensor
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
