"""How the weights of linear layers are stored and multiplied, chosen by the checkpoint's config."""

from quire.quant.method import LinearMethod, Unquantized, linear_method
from quire.quant.weight import Weight, row_slices

__all__ = ["LinearMethod", "Unquantized", "Weight", "linear_method", "row_slices"]
