"""Files of OpenAI's batch format: requests in, answers out, one JSON object on each line.

The output file is the only record of progress: what it holds is done. It knows nothing of how requests
are answered.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from quire.errors import ConfigError

MAX_LINE_BYTES = 32 * 2**20  # of a request: what a server takes as a body
ANSWER_BEGINS = b'{"id": "batch_req_'  # every line that we write


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request of the input.

    Args:
        number: of its line, from 1.
        custom_id: the caller's name for it; None only where the line has none, and `fault` says so.
        url: the endpoint's path, such as `/v1/chat/completions`.
        body: of the request.
        fault: why the line is no request; the other fields then hold what could be read.
    """

    number: int
    custom_id: str | None
    url: str = ""
    body: Any = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a request ended.

    Args:
        status: HTTP status; None where no server answered.
        body: the answer, or OpenAI's error object.
        request_id: the server's name for the request.
    """

    status: int | None
    body: Any
    request_id: str = ""

    @property
    def failed(self) -> bool:
        return self.status != 200


def read_requests(source: IO[bytes]) -> Iterator[BatchRequest]:
    """The requests of an input file, one at a time; blank lines are passed over."""
    number = 0
    while line := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = source.readline(MAX_LINE_BYTES)
            yield BatchRequest(
                number, None, fault=f"the line is longer than {MAX_LINE_BYTES} bytes"
            )
        elif line.strip():
            yield _request(number, line)


def _request(number: int, line: bytes) -> BatchRequest:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BatchRequest(number, None, fault=f"the line is not JSON: {error}")
    if not isinstance(fields, dict):
        return BatchRequest(number, None, fault="the line is not a JSON object")
    custom_id, url, body = fields.get("custom_id"), fields.get("url"), fields.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        return BatchRequest(number, None, fault="custom_id must be a text that is not empty")
    fault = None
    if fields.get("method") != "POST":
        fault = f'method must be "POST", got {fields.get("method")!r}'
    elif not isinstance(url, str) or not url.startswith("/"):
        fault = f'url must be a path such as "/v1/chat/completions", got {url!r}'
    elif not isinstance(body, dict):
        fault = "body must be a JSON object"
    elif body.get("stream"):
        fault = "a batch has no streams: leave out stream"
    return BatchRequest(number, custom_id, str(url), body, fault)


def count_lines(path: Path) -> int:
    """Lines in a file, without keeping them."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


@contextmanager
def open_input(path: str) -> Iterator[IO[bytes]]:
    """The input file, or standard input for `-`.

    Raises:
        ConfigError: it cannot be read.
    """
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", param="input") from None
    with file:
        yield file


class AnswerFile:
    """The output file: what it held before, and a place to add answers.

    A last line that a kill cut short is removed. A file with any other line that is no answer of a batch
    is left as it is.

    Args:
        path: of the file; made if there is none.
        retry_errors: remove the answers that are errors, so that their requests are run again.

    Raises:
        ConfigError: the file cannot be written, or is not ours.

    Attributes:
        num_before: answers that were there.
    """

    def __init__(self, path: Path, *, retry_errors: bool = False) -> None:
        self._ids: set[str] = set()  # about 100 bytes each: all that grows with the batch
        self._faulty_lines: set[int] = set()
        self.num_before = 0
        try:
            num_errors = self._scan(path) if path.exists() else 0
            if retry_errors and num_errors:
                _drop_errors(path)
                self._ids.clear()
                self._faulty_lines.clear()
                self._scan(path)
            self._file = path.open("ab")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}", param="output") from None

    def holds(self, request: BatchRequest) -> bool:
        """Whether the request was answered before this run, or its line found faulty."""
        if request.custom_id is None:
            return request.number in self._faulty_lines
        return request.custom_id in self._ids

    def write(self, request: BatchRequest, result: Result) -> None:
        """Add an answer; once this returns, a kill of the process does not lose it."""
        line: dict[str, Any] = {"id": f"batch_req_{uuid.uuid4().hex}"}
        line["custom_id"] = request.custom_id
        if request.custom_id is None:
            line["input_line"] = request.number
        line["response"] = None
        if result.status is not None:
            line["response"] = {
                "status_code": result.status,
                "request_id": result.request_id,
                "body": result.body,
            }
        line["error"] = _error(result.body) if result.failed else None
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Write all to the disk, too."""
        with self._file:
            os.fsync(self._file.fileno())

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _scan(self, path: Path) -> int:
        """Note what the file holds and repair its end; returns how many of its answers are errors."""
        end = num_errors = self.num_before = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                answer = _answer(line)
                if answer is None:
                    torn = not line.endswith(b"\n") and _may_begin_an_answer(line)
                    if torn:
                        break
                    raise ConfigError(
                        f"line {number} of {path} is no answer of a batch; give another file by -o",
                        param="output",
                    )
                end += len(line)
                self.num_before += 1
                num_errors += answer["error"] is not None
                if answer["custom_id"] is None:
                    self._faulty_lines.add(answer.get("input_line", 0))
                else:
                    self._ids.add(answer["custom_id"])
        if end < path.stat().st_size:
            os.truncate(path, end)
        return num_errors


def _answer(line: bytes) -> dict[str, Any] | None:
    """A whole line of ours; None for a torn one or another file's."""
    if not line.startswith(ANSWER_BEGINS) or not line.endswith(b"\n"):
        return None
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if {"custom_id", "response", "error"} <= answer.keys() else None


def _may_begin_an_answer(line: bytes) -> bool:
    return line[: len(ANSWER_BEGINS)] == ANSWER_BEGINS[: len(line)]


def _drop_errors(path: Path) -> None:
    """Write the file anew without its errors, and put the new one in its place at once."""
    kept = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with path.open("rb") as old, kept.open("wb") as new:
            for line in old:
                if json.loads(line)["error"] is None:
                    new.write(line)
        os.replace(kept, path)
    finally:
        kept.unlink(missing_ok=True)


def _error(body: Any) -> dict[str, Any]:
    """`code` and `message` of an error object, for those who look at the line's `error` alone."""
    inner = body.get("error") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return {"code": "request_failed", "message": str(body)[:1000]}
    return {
        "code": inner.get("code") or inner.get("type") or "request_failed",
        "message": inner.get("message"),
    }
