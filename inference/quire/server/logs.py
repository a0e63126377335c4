"""What a server tells its operator: lines of text or of JSON on standard error.

A line about a request holds its id and figures, never its text and never a key.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

RED, PLAIN = "\x1b[31m", "\x1b[0m"


def set_up_logging(form: str) -> None:
    """Send the lines of quire, and uvicorn's errors, to standard error.

    uvicorn's warnings are about clients that speak no HTTP; anyone could fill a disk with them.

    Args:
        form: "text" or "json".
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines(sys.stderr.isatty()))
    for name, level in (
        ("quire", logging.INFO),
        ("uvicorn", logging.ERROR),
        ("opentelemetry", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


class TextLines(logging.Formatter):
    """`12:30:01 INFO message`; warnings and errors in red where there is a terminal."""

    def __init__(self, colored: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{RED}{text}{PLAIN}" if self._colored and record.levelno > logging.INFO else text


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def log_figures(logger: logging.Logger, title: str, fields: Mapping[str, Any]) -> None:
    """A line of `name=value` pairs at level INFO; in JSON the pairs are fields of the object."""
    shown = {name: value for name, value in fields.items() if value is not None}
    pairs = " ".join(f"{name}={_short(value)}" for name, value in shown.items())
    logger.info("%s %s", title, pairs, extra={"fields": {"event": title, **shown}})


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
