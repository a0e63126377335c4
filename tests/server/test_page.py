"""The page at / in a real headless Chromium, driven over its debugging pipe: key, load, chat."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

import pytest

from live_server import TEXT, live_server

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    page = resources.files("quire.server").joinpath("page.html").read_text()
    assert "http://" not in page and "https://" not in page and "//cdn" not in page
    assert "src=" not in page and "@import" not in page


class Browser:
    """One tab of Chromium; speaks its protocol over a pair of pipes, one JSON message between NUL bytes."""

    def __init__(self, to_browser: FileIO, from_browser: BufferedReader) -> None:
        self._to = to_browser
        self._from = from_browser
        self._rest = b""
        self._id = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = self._from.read1(65_536)
                assert part, "the browser has ended"
                self._rest += part
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Return when an expression in the page is true."""
        self.run(
            "new Promise((done, fail) => { const end = Date.now() + 20000; (function look() {"
            f" if ({condition}) done(); else if (Date.now() > end) fail(new Error(document.body.innerText));"
            " else setTimeout(look, 20); })(); })"
        )


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    assert CHROMIUM is not None
    child_in, to_browser = os.pipe()
    from_browser, child_out = os.pipe()

    pipes = (  # Chromium takes its commands from descriptor 3 and answers on 4
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
        "os.execv(sys.argv[3], sys.argv[3:])"
    )
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", pipes, str(child_in), str(child_out), CHROMIUM, *flags],
        pass_fds=(child_in, child_out),
        stderr=subprocess.DEVNULL,
    )
    os.close(child_in)
    os.close(child_out)
    try:
        with (
            os.fdopen(to_browser, "wb", buffering=0) as to,
            os.fdopen(from_browser, "rb") as source,
        ):
            yield Browser(to, source)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    with live_server(keys=["a-key"]) as live, chromium(tmp_path) as browser:
        browser.call("Page.navigate", url=f"{live.url}/")
        browser.until(
            "document.querySelector('#locked') && !document.querySelector('#locked').hidden"
        )
        browser.run("at('key').value = 'wrong'; at('unlock').requestSubmit()")
        browser.until("!at('locked').hidden && at('status').textContent === 'locked' && !key")
        browser.run("at('key').value = 'a-key'; at('unlock').requestSubmit()")
        browser.until("!at('open').hidden && at('status').textContent === 'serving'")
        assert browser.run("at('model').textContent") == "tiny"
        assert browser.run("at('cache').textContent") == "0.0 %"
        browser.until("document.querySelector('#rate-plot path')")

        browser.run("at('message').value = 'Hello there!'; at('ask').requestSubmit()")
        browser.until("!answering && document.querySelectorAll('.said').length === 2")
        said = browser.run("[...document.querySelectorAll('.said')].map((box) => box.textContent)")
        assert said == ["Hello there!", TEXT]
        assert "tokens/s" in browser.run("at('figures').textContent")

        live.executor.gate.clear()
        browser.run("at('message').value = '<b>again</b>'; at('ask').requestSubmit()")
        browser.until("document.querySelectorAll('#running tr').length === 1")
        assert browser.run("document.querySelectorAll('.said b').length") == 0
        browser.run("at('stop').click()")
        browser.until("!answering")
        live.executor.gate.set()
        while live.records.get(timeout=10).finish_reasons != ("abort",):
            pass
        assert browser.run("messages.length") == 2  # a message without an answer is not kept
