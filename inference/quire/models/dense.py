"""sentence-transformers' layers after the pooling. It knows nothing of the model before them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from quire.errors import UnsupportedModelError, WeightsError
from quire.hub.configs import read_json
from quire.models.weights import read_tensors

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}
FILES = ("model.safetensors", "pytorch_model.bin")


def load_dense(folders: Sequence[Path], in_features: int, device: torch.device) -> nn.Sequential:
    """The layers of `folders`, one after the other, in float32: [rows, in_features] -> [rows, n].

    Raises:
        WeightsError: weights are missing or do not fit.
        UnsupportedModelError: an activation that quire does not have.
    """
    layers = nn.Sequential()
    for folder in folders:
        linear, activation = _layer(folder)
        if linear.in_features != in_features:
            raise WeightsError(
                f"{folder} takes vectors of {linear.in_features} numbers, and gets {in_features}"
            )
        in_features = linear.out_features
        layers.extend([linear, activation])
    return layers.requires_grad_(False).to(device).eval()


def out_features(layers: nn.Sequential, in_features: int) -> int:
    """Numbers of the vectors that come out."""
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return linears[-1].out_features if linears else in_features


def _layer(folder: Path) -> tuple[nn.Linear, nn.Module]:
    settings = read_json(folder / "config.json")
    name = str(settings.get("activation_function", "torch.nn.modules.linear.Identity"))
    activation = ACTIVATIONS.get(name.rpartition(".")[2])
    if activation is None:
        raise UnsupportedModelError(
            f"{folder / 'config.json'} has the activation {name}; quire has {', '.join(ACTIVATIONS)}"
        )
    linear = nn.Linear(
        int(settings["in_features"]),
        int(settings["out_features"]),
        bool(settings.get("bias", True)),
    )
    files = [folder / name for name in FILES if (folder / name).is_file()][:1]
    if not files:
        raise WeightsError(f"no weights in {folder}: it has none of {', '.join(FILES)}")
    parameters = dict(linear.named_parameters())
    missing = set(parameters)
    with torch.no_grad():
        for stored in read_tensors(files):
            name = stored.name.removeprefix("linear.")
            if name not in parameters or parameters[name].shape != stored.tensor.shape:
                raise WeightsError(
                    f"tensor {stored.name} {list(stored.tensor.shape)} in {stored.file} does not fit the "
                    f"layer that {folder / 'config.json'} describes"
                )
            parameters[name].copy_(stored.tensor[:])
            missing.discard(name)
    if missing:
        raise WeightsError(f"{files[0]} lacks {', '.join(sorted(missing))}")
    return linear, activation()
