"""From a checkpoint on disk to a model ready to run. It knows tensors and names, not architectures.

A model is built on the meta device, given memory once, in its dtype and on its device, and then filled
tensor by tensor. Nothing is left out and nothing is left over: a silently random weight cannot be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from quire.config import EngineConfig
from quire.errors import ConfigError, DeviceMemoryError, UnsupportedModelError, WeightsError
from quire.hub import Checkpoint, fetch_weights
from quire.layers.embedding import LMHead
from quire.layers.linear import Linear
from quire.models.base import Model
from quire.models.registry import model_class
from quire.models.weights import StoredTensor, read_tensors, weight_files
from quire.quant import Weight, linear_method

# id of a parameter and name of its part -> name and file of the tensor that it is from
Filled = dict[tuple[int, str | None], tuple[str, Path]]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def load_model(
    checkpoint: Checkpoint, config: EngineConfig, reserve: Callable[[int], None] | None = None
) -> Model:
    """Build the checkpoint's model and fill it with its weights.

    Args:
        checkpoint: from `quire.hub.find_model`.
        config: `dtype`, `device`, `quantization`, `load_format`, `max_model_len` and `seed` (of dummy
            weights) are read.
        reserve: told, before any is taken, how many bytes the weights will hold; what it raises is raised.

    Returns:
        The model in eval mode, gradients off, on its device; see its `spec`, `dtype` and `device`.

    Raises:
        UnsupportedModelError: no such architecture, or a feature of it that quire does not have.
        ModelNotFoundError: the weights cannot be downloaded.
        WeightsError: a tensor is missing, unexpected, misshapen or unreadable.
        DeviceMemoryError: the weights do not fit on the device.
        ConfigError: `device="cuda"` without one.
    """
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, checkpoint)
    hf_config = checkpoint.hf_config
    if not checkpoint.has_head:  # a decoder's head then takes no memory, and is in no file
        hf_config = copy.copy(hf_config)
        hf_config.tie_word_embeddings = True
    quantized = getattr(hf_config, "quantization_config", None)
    method = linear_method(quantized, config.quantization, device)
    with torch.device("meta"):
        model = model_class(hf_config)(hf_config, config.max_model_len)
        for module in model.modules():
            if isinstance(module, Linear | LMHead):
                module.use(method)
    dummy = config.load_format == "dummy"
    files: list[Path] = []
    if not dummy:
        fetch_weights(checkpoint, config)
        files = weight_files(checkpoint.folder, config.load_format)
    if reserve is not None:
        reserve(weight_bytes(model, dtype))
    materialise(model, device, dtype)
    if dummy:
        fill_randomly(model, config.seed)
    else:
        fill(model, read_tensors(files))
    return model.eval()


def choose_device(name: str) -> torch.device:
    """The device of a config's name; "auto" is the GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for, and there is none that torch can use.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "device='cuda', but torch finds no GPU it can use; leave device at 'auto', or install a "
            "build of torch for your GPU",
            param="device",
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def choose_dtype(name: str, checkpoint: Checkpoint) -> torch.dtype:
    """The dtype of a config's name; "auto" is the one that the checkpoint's config names,
    float32 where it names none.

    Raises:
        UnsupportedModelError: "auto", and the checkpoint is of a dtype that quire does not compute in.
    """
    if name == "auto":
        named = getattr(checkpoint.hf_config, "dtype", None) or "float32"
        name = str(named).removeprefix("torch.")
    if name not in DTYPES:
        raise UnsupportedModelError(
            f"config.json gives dtype {name!r}; set dtype to one of {', '.join(DTYPES)}"
        )
    return DTYPES[name]


def weight_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes that the parameters of a model on the meta device will hold in `dtype`."""
    meta = torch.device("meta")
    twins = (_twin(parameter, meta, dtype) for parameter in model.parameters())
    return sum(twin.held_bytes if isinstance(twin, Weight) else twin.nbytes for twin in twins)


def materialise(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give every parameter memory on `device`, uninitialised; a shared one stays shared.

    Raises:
        DeviceMemoryError: there is not enough of it.
    """
    made: dict[int, nn.Parameter] = {}  # id of the meta parameter -> its twin
    try:
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in made:
                    made[id(parameter)] = _twin(parameter, device, dtype)
                setattr(module, name, made[id(parameter)])
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
    except RuntimeError as error:  # also torch.OutOfMemoryError
        if "memory" not in str(error):
            raise
        raise DeviceMemoryError(
            f"the weights do not fit into the memory of {device} in {dtype}; take a smaller model or "
            f"dtype, or free memory ({error})"
        ) from error


def _twin(parameter: nn.Parameter, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
    if isinstance(parameter, Weight):
        return parameter.made_on(device, dtype)
    data = torch.empty(parameter.shape, dtype=dtype, device=device)
    return nn.Parameter(data, requires_grad=False)


def fill_randomly(model: nn.Module, seed: int) -> None:
    """Small normal numbers for matrices, ones for norms and zeros for biases; the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        shape = parameter.full_shape if isinstance(parameter, Weight) else parameter.shape
        if len(shape) > 1:
            values = torch.randn(shape, generator=generator).mul_(0.02)
        else:
            values = torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
        if isinstance(parameter, Weight):
            parameter.put_part(None, values.t() if parameter.transposed else values)
        else:
            parameter.data.copy_(values)


def fill(model: Model, stored: Iterable[StoredTensor]) -> None:
    """Copy a checkpoint's tensors into the model's parameters.

    Raises:
        WeightsError: a tensor is unexpected, misshapen, there twice, or missing; names tensor, shapes
            and file.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    filled: Filled = {}
    with torch.no_grad():
        for item in stored:
            ours = model.renamed(item.name)
            if ours is None:
                continue
            name, part = _place(model, parameters, item, ours)
            parameter = parameters[name]
            _copy(parameter, part, item, filled.get((id(parameter), part)))
            filled[id(parameter), part] = (item.name, item.file)
    missing = [
        _checkpoint_name(model, name, part)
        for name, parameter in model.named_parameters()
        for part in _missing_parts(parameter, filled)
    ]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        folders = {str(file.parent) for _, file in filled.values()}
        raise WeightsError(
            f"the checkpoint {', '.join(folders)} lacks {', '.join(missing[:5])}{more}, which its "
            "config.json calls for; check that config.json and weights belong together"
        )


def _place(
    model: Model, parameters: dict[str, nn.Parameter], item: StoredTensor, ours: str
) -> tuple[str, str | None]:
    """The parameter that a tensor belongs to, and which part of it it is; None: all of it."""
    for name in (ours, model.prefix + ours):
        path, part = name.split("."), None
        if len(path) > 1:  # [..., module, "weight" or "bias"]
            path[-2], part = model.packed.get(path[-2], (path[-2], None))
        renamed = ".".join(path)
        if renamed in parameters:
            return renamed, part
    raise WeightsError(
        f"unexpected tensor {item.name} {list(item.tensor.shape)} in {item.file}: "
        f"{model.spec.architecture} as config.json describes it has no such weight"
    )


def _copy(
    parameter: nn.Parameter, part: str | None, item: StoredTensor, before: tuple[str, Path] | None
) -> None:
    weight = parameter if isinstance(parameter, Weight) else Weight(parameter.data)
    shape = weight.stored_shape(part)
    if shape != item.tensor.shape:
        raise WeightsError(
            f"tensor {item.name} in {item.file} has shape {list(item.tensor.shape)}, but config.json "
            f"calls for {list(shape)}"
        )
    if not item.tensor.dtype.is_floating_point:
        raise WeightsError(
            f"tensor {item.name} in {item.file} is of {item.tensor.dtype}, where the model has floats; "
            "quantized weights need their quantization_config"
        )
    if before is None:
        weight.put_part(part, item.tensor)
    elif not weight.holds_part(part, item.tensor):
        # Tied weights may stand in a file under both names, but must then be the same.
        raise WeightsError(
            f"tensors {before[0]} in {before[1]} and {item.name} in {item.file} differ, but are one "
            "weight in the model; if they are not meant to be tied, set "
            'hf_overrides={"tie_word_embeddings": False}'
        )


def _missing_parts(parameter: nn.Parameter, filled: Filled) -> list[str | None]:
    if (id(parameter), None) in filled:
        return []
    parts = list(parameter.parts) if isinstance(parameter, Weight) else []
    found = [part for part in parts if (id(parameter), part) in filled]
    return [part for part in parts if part not in found] if found else [*parts] or [None]


def _checkpoint_name(model: Model, name: str, part: str | None) -> str:
    """The name that a parameter, or a part of it, has in a checkpoint."""
    path = name.split(".")
    for theirs, ours in model.packed.items():
        if ours == (path[-2], part):
            path[-2] = theirs
            break
    return ".".join(path)
