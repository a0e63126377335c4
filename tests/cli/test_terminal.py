"""`quire chat` in a real terminal, with a real Ctrl-C."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pty = pytest.importorskip("pty")

SUPPORT = Path(__file__).parents[1] / "support"

PROGRAM = """
import itertools, sys, time
from quire.cli import main
from scripted_llm import ScriptedLLM, echo

def answer(messages):
    if messages[-1]["content"] != "count":
        yield echo(messages)
        return
    for number in itertools.count():
        yield f"{number} "
        time.sleep(0.005)

sys.exit(main(["chat"], make_llm=lambda **options: ScriptedLLM(answer)))
"""


class Terminal:
    """A process in a pseudo-terminal: type into it, wait for what it shows."""

    def __init__(self, program: str) -> None:
        self.master, end = pty.openpty()
        path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "TERM": "dumb"},
        )
        os.close(end)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> None:
        """Read until `text` is shown, and forget all up to its end."""
        deadline = time.monotonic() + 120
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} not in {self.shown!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.master, 4096).decode()
                except OSError:  # how Linux says that the process has ended
                    assert text in self.shown, f"ended, and {text!r} not in {self.shown!r}"
        self.shown = self.shown.partition(text)[2]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(PROGRAM)
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.master)


def test_a_conversation(terminal: Terminal) -> None:
    terminal.wait_for("> ")
    terminal.type("hello\n")
    terminal.wait_for("HELLO")
    terminal.wait_for("> ")

    terminal.type("count\n")
    terminal.wait_for("0 1 2 3 ")
    terminal.interrupt()
    terminal.wait_for("[stopped]")
    terminal.wait_for("> ")

    terminal.type("again\n")
    terminal.wait_for("AGAIN")
    terminal.wait_for("> ")

    terminal.type("\x04")
    assert terminal.process.wait(timeout=120) == 0


def test_ctrl_c_twice(terminal: Terminal) -> None:
    terminal.wait_for("> ")
    code = None
    for _ in range(20):  # readline misses a signal that comes just before it waits for keys
        terminal.interrupt()
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = terminal.process.wait(timeout=0.5)
            break
    assert code == 0
    terminal.wait_for("Ctrl-C again")
