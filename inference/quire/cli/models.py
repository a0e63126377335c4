"""`quire models`: the architectures quire has, and the models on this machine. Nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quire.cli.flags import Parser

if TYPE_CHECKING:
    from quire.cli import MakeLLM


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire models`; it loads none of them."""
    parser = Parser(
        prog="quire models",
        usage="[--help] [--download-dir FOLDER]",
        description="List the architectures that quire runs and the models on this machine.",
    )
    parser.add_argument(
        "--download-dir", metavar="FOLDER", help="cache to look into; default: Hugging Face's"
    )
    given = parser.parse(arguments)

    # After the flags are read: the registry imports torch.
    from quire.hub import bundled_model, cached_models
    from quire.models.registry import MODELS, is_native

    print("Architectures:")
    for name in sorted(MODELS):
        print(f"  {name}")

    folder = bundled_model()
    size = sum(file.stat().st_size for file in folder.iterdir())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rows = [(f"{folder.name} (bundled)", str(config["architectures"][0]), size)]
    rows += [
        (model.name, model.architecture or "unknown architecture", model.size)
        for model in cached_models(given.download_dir)
    ]
    width = max(len(name) for name, _, _ in rows)
    print("\nModels on this machine:")
    for name, architecture, size in rows:
        note = "" if is_native(architecture) else "  (not supported)"
        print(f"  {name:<{width}}  {_readable(size):>8}  {architecture}{note}")


def _readable(size: int) -> str:
    """A number of bytes in a unit that fits."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
