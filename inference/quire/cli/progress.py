"""The commands' progress bar: on standard error, and only where that is a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(total: int | None, unit: str = "requests") -> tqdm[Any]:
    """A bar to `update`; use it in a `with`."""
    from tqdm import tqdm

    disable = not sys.stderr.isatty()
    return tqdm(total=total, unit=f" {unit}", dynamic_ncols=True, disable=disable)
