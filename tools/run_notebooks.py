"""Runs the notebooks, each in a fresh kernel, and stores or compares what they print: `make notebooks`.

Outputs are stored with the notebooks. A cell whose output is another one each time (timings, ids) has the tag
"varies" and is not compared; pictures are not either, beyond there being as many.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TOLERANCE = 0.02  # of numbers with a decimal point: the last bits of a logit depend on the machine
SECONDS = 600  # that a cell may take
_DECIMAL = re.compile(r"-?\d+\.\d+")


def main() -> int:
    """Run all notebooks, or those named; write them back, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    parser.add_argument("--check", action="store_true", help="compare with what is stored")
    arguments = parser.parse_args()
    found = []
    for path in arguments.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(path.name, flush=True)
        stored = nbformat.read(path, as_version=4)
        run = execute(stored)
        if arguments.check:
            found += [f"{path.name}: {difference}" for difference in differences(stored, run)]
        else:
            nbformat.write(run, path)
    for difference in found:
        print(difference)
    return 1 if found else 0


def execute(stored: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of a notebook, run from top to bottom in a kernel and a folder of its own.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = copy.deepcopy(stored)
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "IPYTHONDIR": folder,  # nobody's profile
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, without ipywidgets
        }
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            extra_arguments=[
                "--IPKernelApp.log_level=40"
            ],  # that it listens on this machine is meant
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment)
    notebook.metadata = copy.deepcopy(stored.metadata)  # not this Python's version
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()  # no sizes of pictures
    return notebook


def differences(stored: nbformat.NotebookNode, run: nbformat.NotebookNode) -> list[str]:
    """Where a run printed something else than what is stored, in words."""
    found = []
    for number, (before, now) in enumerate(zip(stored.cells, run.cells, strict=True)):
        if before.cell_type != "code" or "varies" in before.metadata.get("tags", []):
            continue
        old, new = printed(before), printed(now)
        if not alike(old, new):
            found.append(f"cell {number} printed {new!r}; stored is {old!r}")
        if pictures(before) != pictures(now):
            found.append(f"cell {number} drew {pictures(now)} pictures, not {pictures(before)}")
    return found


def printed(cell: nbformat.NotebookNode) -> str:
    """All text that a cell put out."""
    texts: list[Any] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif "image/png" not in output.get("data", {}):
            texts.append(output.get("data", {}).get("text/plain", ""))
    return "".join(texts)


def pictures(cell: nbformat.NotebookNode) -> int:
    """How many a cell drew."""
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def alike(one: str, other: str) -> bool:
    """Whether two texts are the same but for the last digits of numbers with a decimal point."""
    if _DECIMAL.sub("#", one) != _DECIMAL.sub("#", other):
        return False
    pairs = zip(_DECIMAL.findall(one), _DECIMAL.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= TOLERANCE for a, b in pairs)


if __name__ == "__main__":
    sys.exit(main())
