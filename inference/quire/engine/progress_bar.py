"""`ProgressBar`: how far a batch is, on a terminal. Knows outputs, and neither engine nor requests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from quire.outputs import RequestOutput


class ProgressBar:
    """tqdm over finished prompts, with prompt and generation tokens per second."""

    def __init__(self, total: int, use_tqdm: bool | Callable[..., tqdm[Any]]) -> None:
        make = use_tqdm if callable(use_tqdm) else tqdm
        self._bar = make(
            total=total,
            desc="Processed prompts",
            dynamic_ncols=True,
            disable=not use_tqdm or not sys.stderr.isatty(),
        )
        self._prompt_tokens = 0
        self._generated_tokens = 0

    def update(self, output: RequestOutput) -> None:
        self._prompt_tokens += len(output.prompt_token_ids)
        self._generated_tokens += sum(len(one.token_ids) for one in output.outputs)
        seconds = self._bar.format_dict["elapsed"] or 1e-9
        self._bar.set_postfix_str(
            f"prompt: {self._prompt_tokens / seconds:.1f} tokens/s, "
            f"generation: {self._generated_tokens / seconds:.1f} tokens/s",
            refresh=False,
        )
        self._bar.update(1)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
