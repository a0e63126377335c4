"""`quire version`: versions of quire and of what decides how it behaves, without importing any of it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import quire
from quire.cli.flags import Parser

if TYPE_CHECKING:
    from quire.cli import MakeLLM

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub")


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire version`; it needs no model."""
    Parser(
        prog="quire version",
        usage="[--help]",
        description="Print the versions of quire and of what decides how it behaves.",
    ).parse(arguments)
    print(f"quire {quire.__version__}")
    print(f"python {platform.python_version()}")
    for name in PACKAGES:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed")
