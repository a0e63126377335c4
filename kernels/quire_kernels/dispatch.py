"""The operations that models call: each runs the best version that its tensors' device has.

A faster version is a function of the same name and signature in a module named under its device in
`FASTER`; a module may leave operations out, and those run as the reference. Where a module's function
`unavailable` gives a reason, all run as the reference, and the reason is told once. Nothing else changes
when a module is added.

Environment:
    QUIRE_KERNELS: "reference" to run the reference everywhere; default: "auto".
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Callable
from types import MappingProxyType, ModuleType
from typing import ParamSpec, Protocol, TypeVar, cast

import torch

from quire_kernels import reference

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# device type -> module with faster versions, e.g. "cuda": "quire_kernels.triton"
FASTER: MappingProxyType[str, str] = MappingProxyType({"cpu": "quire_kernels.cpu"})


@functools.cache
def find(name: str, device_type: str) -> Callable[..., object]:
    """The version of operation `name` that runs on devices of this type."""
    return cast(
        Callable[..., object], getattr(_faster(device_type), name, getattr(reference, name))
    )


@functools.cache
def _faster(device_type: str) -> ModuleType | None:
    """The module with faster versions for devices of this type, if it can be used here."""
    wanted = os.environ.get("QUIRE_KERNELS") or "auto"
    if wanted not in ("auto", "reference"):
        raise ValueError(f"QUIRE_KERNELS={wanted!r}: it is 'auto' or 'reference'")
    if wanted == "reference" or device_type not in FASTER:
        return None
    module = importlib.import_module(FASTER[device_type])
    reason: str | None = module.unavailable()
    if reason is None:
        return module
    logger.warning(
        "no compiled kernels for this %s: %s. Plain torch runs instead, several times slower "
        "(QUIRE_KERNELS=reference chooses that without this warning)",
        device_type,
        reason,
    )
    return None


def _dispatched(operation: Callable[P, R]) -> Callable[P, R]:
    """`operation`, run in the version for the device of its first argument."""
    name = operation.__name__

    @functools.wraps(operation)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        first: torch.Tensor = args[0]  # type: ignore[assignment]
        return find(name, "cpu" if first.is_cpu else first.device.type)(*args, **kwargs)  # type: ignore[return-value]

    return run


write_kv = _dispatched(reference.write_kv)
paged_attention = _dispatched(reference.paged_attention)
bidirectional_attention = _dispatched(reference.bidirectional_attention)
rms_norm = _dispatched(reference.rms_norm)
add_rms_norm = _dispatched(reference.add_rms_norm)
layer_norm = _dispatched(reference.layer_norm)
rotary_and_write_kv = _dispatched(reference.rotary_and_write_kv)
rotary_angles = _dispatched(reference.rotary_angles)
rotary_embedding = _dispatched(reference.rotary_embedding)
silu_and_mul = _dispatched(reference.silu_and_mul)
gelu_and_mul = _dispatched(reference.gelu_and_mul)
likeliest = _dispatched(reference.likeliest)
row_peaks = _dispatched(reference.row_peaks)
restrict_tokens = _dispatched(reference.restrict_tokens)
pack_rows = _dispatched(reference.pack_rows)
packed_linear = _dispatched(reference.packed_linear)
embedding = _dispatched(reference.embedding)
packed_embedding = _dispatched(reference.packed_embedding)
squeeze_rows = _dispatched(reference.squeeze_rows)
squeezed_linear = _dispatched(reference.squeezed_linear)
squeezed_embedding = _dispatched(reference.squeezed_embedding)
quantize_rows = _dispatched(reference.quantize_rows)
int8_linear = _dispatched(reference.int8_linear)
int8_embedding = _dispatched(reference.int8_embedding)


def multiplies_packed(device_type: str) -> bool:
    """Whether devices of this type are faster with packed weights; the reference only unpacks them."""
    return find("packed_linear", device_type) is not reference.packed_linear


def squeezes(device_type: str) -> bool:
    """Whether devices of this type multiply by squeezed weights faster than by packed ones."""
    found = getattr(_faster(device_type), "squeezes", None)
    return found is not None and found()


class Program(Protocol):
    """Operations that ran once, to run again on the same memory."""

    def run(self) -> None:
        """Run them all."""


def recorder(device_type: str) -> ModuleType | None:
    """The module whose `recording` and `Arena` make programs on devices of this type; None: there is none."""
    return getattr(_faster(device_type), "operation", None)
