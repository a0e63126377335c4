"""A parameter that knows how the tensors of a checkpoint go into it. It reads no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import nn

# Bytes of a checkpoint's tensor that are read, and converted, at a time: few enough to stay in a cache.
CHUNK = 4 << 20
STRIDE = 16  # packed forms hold so many rows together


class Rows(Protocol):
    """A checkpoint's tensor, in memory or in a file."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> torch.Tensor:
        """Some rows, or all; good until the next are asked for."""


class Weight(nn.Parameter):
    """A parameter that a checkpoint may hold in several parts, or transposed; without gradients.

    Attributes:
        parts: name of each part -> its rows along dimension 0, e.g. q, k and v of a merged
            projection; empty where the checkpoint has no parts.
        transposed: the checkpoint holds [in, out] where this is [out, in] (GPT-2's Conv1D).
        full_shape: of the weight as a plain tensor; subclasses may hold it in another form.
    """

    parts: Mapping[str, slice]
    transposed: bool
    full_shape: torch.Size

    def __new__(
        cls,
        data: torch.Tensor,
        parts: Mapping[str, slice] | None = None,
        transposed: bool = False,
        full_shape: torch.Size | None = None,
    ) -> Weight:
        weight: Weight = super().__new__(cls, data, requires_grad=False)
        weight.parts = parts or {}
        weight.transposed = transposed
        weight.full_shape = full_shape or data.shape
        return weight

    def made_on(self, device: torch.device, dtype: torch.dtype) -> Weight:
        """A twin with memory of its own, to be filled by `put_part`; computes in `dtype`."""
        data = torch.empty(self.full_shape, dtype=dtype, device=device)
        return Weight(data, self.parts, self.transposed)

    @property
    def held_bytes(self) -> int:
        """All that it holds, in memory."""
        return self.data.nbytes

    def stored_shape(self, part: str | None) -> torch.Size:
        """Shape that a checkpoint's tensor must have: of one part, or of the whole."""
        rows = range(self.full_shape[0])[self._rows(part)]
        shape = torch.Size([len(rows), *self.full_shape[1:]])
        return torch.Size(reversed(shape)) if self.transposed else shape

    def put_part(self, part: str | None, tensor: Rows) -> None:
        """Take over a checkpoint's tensor, of `stored_shape(part)`: one part, or the whole."""
        self.data[self._rows(part)].copy_(self._whole(tensor))

    def holds_part(self, part: str | None, tensor: Rows) -> bool:
        """Whether `put_part` would change nothing."""
        return torch.equal(self.data[self._rows(part)], self._whole(tensor).to(self.data))

    def plain(self) -> torch.Tensor:
        """The weight as a tensor of `full_shape`, for looking at it."""
        return self.data

    def _whole(self, tensor: Rows) -> torch.Tensor:
        """As [out, in], whichever way the checkpoint has it."""
        whole = tensor[:]
        return whole.t() if self.transposed else whole

    def _rows(self, part: str | None) -> slice:
        return slice(None) if part is None else self.parts[part]

    def _chunks(
        self, part: str | None, tensor: Rows, dtype: torch.dtype
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Rows of a checkpoint's matrix in `dtype`, a few at a time, each with the first one's place.

        Chunks begin at multiples of `STRIDE` rows of the part.
        """
        source = self._whole(tensor) if self.transposed else tensor
        first = self._rows(part).start or 0
        count = max(1, CHUNK // (source.shape[1] * tensor.dtype.itemsize * STRIDE)) * STRIDE
        for start in range(0, len(source), count):
            yield first + start, source[start : start + count].to(self.device, dtype)


def row_slices(parts: Mapping[str, int]) -> dict[str, slice]:
    """Rows of each part, one after the other; nothing for a layer of a single unnamed part."""
    slices, start = {}, 0
    for name, rows in parts.items():
        slices[name] = slice(start, start + rows)
        start += rows
    return slices if list(parts) != [""] else {}
