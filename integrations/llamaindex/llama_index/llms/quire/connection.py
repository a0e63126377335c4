"""What the classes of this package are given to reach a model, and the connection made of it.

Keys, headers and engines go into the connection alone: no field of a component holds them, so that they
appear in no `repr`, no `to_dict`, no event and no pickle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

import quire
from quire.api.client import Connection
from quire.config import EngineConfig
from quire.errors import ConfigError, UnknownParamError, suggest

# Other names of options, as llama-index-llms-vllm and other integrations have them.
_SAME = {"api_url": "base_url", "api_base": "base_url", "api_headers": "default_headers"}
_UNKEPT = ("api_key", "default_headers", "engine")
_OF_THE_ENGINE = frozenset(field.name for field in dataclasses.fields(EngineConfig))

# Fields that are options of the engine.
ENGINE_FIELDS = ("tensor_parallel_size", "trust_remote_code", "dtype", "download_dir")


def sort_options(
    cls: type[BaseModel], options: Mapping[str, Any], same: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a constructor as fields of the class, and those that only the connection may know.

    Options of the engine that have no field of their own go into `vllm_kwargs`.

    Args:
        options: as given; None stands for an option that is left out.
        same: further names of fields.

    Raises:
        UnknownParamError: naming the nearest option that exists.
        ConfigError: one option by two names.
    """
    fields: dict[str, Any] = {}
    unkept: dict[str, Any] = {}
    names = {**_SAME, **same}
    for given, value in options.items():
        name = names.get(given, given)
        if name not in cls.model_fields and name in _OF_THE_ENGINE and value is not None:
            fields["vllm_kwargs"] = {**fields.get("vllm_kwargs", {}), name: value}
            continue
        if name not in cls.model_fields and name not in _UNKEPT:
            known = (*cls.model_fields, *_UNKEPT, *names, *_OF_THE_ENGINE)
            raise UnknownParamError(
                f"{cls.__name__} has no option {given!r}{suggest(given, known)}", param=given
            )
        if value is None or (given == "api_url" and value == ""):
            continue
        if name == "vllm_kwargs":
            value = {**fields.pop("vllm_kwargs", {}), **value}
        target = unkept if name in _UNKEPT else fields
        if name in target:
            raise ConfigError(f"{given} is another name of {name}: give one", param=given)
        target[name] = value
    if "hf_token" in fields.get("vllm_kwargs", {}):
        fields["vllm_kwargs"] = dict(fields["vllm_kwargs"])
        unkept["hf_token"] = fields["vllm_kwargs"].pop("hf_token")
    return fields, unkept


class Connected(Protocol):
    """A component with what `open_connection` asks for; `ENGINE_FIELDS` it may have."""

    base_url: str | None
    timeout: float | None
    max_retries: int
    vllm_kwargs: dict[str, Any]


def open_connection(
    component: Connected, model: str | None, unkept: Mapping[str, Any]
) -> Connection:
    """The connection of a component; nothing is loaded, and nothing sent, before its first use."""
    assert isinstance(component, BaseModel)
    fields = type(component).model_fields
    options = {name: getattr(component, name) for name in ENGINE_FIELDS if name in fields}
    return quire.connect(
        model,
        base_url=component.base_url,
        timeout=component.timeout,
        max_retries=component.max_retries,
        **{name: value for name, value in options.items() if value != fields[name].default},
        **component.vllm_kwargs,
        **unkept,
    )
