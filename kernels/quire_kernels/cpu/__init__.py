"""The operations for CPUs: C++ over threads and SIMD, called with addresses and sizes alone."""

from quire_kernels.cpu.attention import paged_attention
from quire_kernels.cpu.build import KernelsUnavailable, library
from quire_kernels.cpu.elementwise import (
    add_rms_norm,
    gelu_and_mul,
    layer_norm,
    rms_norm,
    rotary_and_write_kv,
    rotary_angles,
    silu_and_mul,
    write_kv,
)
from quire_kernels.cpu.linear import (
    embedding,
    int8_embedding,
    int8_linear,
    pack_rows,
    packed_embedding,
    packed_linear,
    quantize_rows,
    squeeze_rows,
    squeezed_embedding,
    squeezed_linear,
    squeezes,
)
from quire_kernels.cpu.mask import restrict_tokens
from quire_kernels.cpu.peaks import likeliest, row_peaks

__all__ = [
    "add_rms_norm",
    "embedding",
    "gelu_and_mul",
    "int8_embedding",
    "int8_linear",
    "layer_norm",
    "likeliest",
    "pack_rows",
    "packed_embedding",
    "packed_linear",
    "paged_attention",
    "quantize_rows",
    "restrict_tokens",
    "rms_norm",
    "rotary_and_write_kv",
    "rotary_angles",
    "row_peaks",
    "silu_and_mul",
    "squeeze_rows",
    "squeezed_embedding",
    "squeezed_linear",
    "squeezes",
    "unavailable",
    "write_kv",
]


def unavailable() -> str | None:
    """Why these operations cannot run here; None: they can. The first call may compile them."""
    try:
        library()
    except KernelsUnavailable as error:
        return str(error)
    return None
