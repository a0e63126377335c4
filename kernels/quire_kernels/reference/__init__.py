"""Every operation in plain torch: readable, the oracle that each faster version is tested against.

It runs on any device and is what a device without a faster version uses.
"""

from quire_kernels.reference.activation import gelu_and_mul, silu_and_mul
from quire_kernels.reference.attention import paged_attention, write_kv
from quire_kernels.reference.bidirectional import bidirectional_attention
from quire_kernels.reference.linear import (
    embedding,
    int8_embedding,
    int8_linear,
    pack_rows,
    packed_embedding,
    packed_linear,
    quantize_rows,
)
from quire_kernels.reference.mask import restrict_tokens
from quire_kernels.reference.norm import add_rms_norm, layer_norm, rms_norm
from quire_kernels.reference.peaks import likeliest, row_peaks
from quire_kernels.reference.rotary import rotary_and_write_kv, rotary_angles, rotary_embedding
from quire_kernels.reference.squeezed import squeeze_rows, squeezed_embedding, squeezed_linear

__all__ = [
    "add_rms_norm",
    "bidirectional_attention",
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
    "rotary_embedding",
    "row_peaks",
    "silu_and_mul",
    "squeeze_rows",
    "squeezed_embedding",
    "squeezed_linear",
    "write_kv",
]
