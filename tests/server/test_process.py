"""`quire serve` as a process, with the bundled model: start, stop, death, and what it logs."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from live_server import ServeProcess
from quire.cli import main
from quire.errors import ConfigError
from quire.server.options import ServerOptions
from quire.server.run import Address

ENDLESS = {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True, "n": 2}
DYING = """
import sys
from fake_executor import FakeExecutor
from quire.cli.serve import SERVER, _parser
from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.server.options import ServerOptions
from quire.server.run import serve

def fail(plan):
    raise SystemExit("the machine is on fire: /secret/path")

options = ServerOptions(**SERVER.read(_parser().parse(sys.argv[1:])))
sys.exit(serve(EngineConfig(skip_tokenizer_init=True), options,
    lambda config: Engine(executor=FakeExecutor(before_step=fail, skip_tokenizer_init=True))))
"""


def test_a_server_from_start_to_end(tmp_path: Path) -> None:
    """One process for the quick run: file, key, name, JSON log, answers, draining, exit code."""
    config = tmp_path / "server.yaml"
    config.write_text("served_model_name: [mini, other]\nlog-format: json\nmax-model-len: 2k\n")
    with ServeProcess("--config", str(config), QUIRE_API_KEY="a-key") as server:
        url = server.url()
        with OpenAI(base_url=f"{url}/v1", api_key="a-key", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["mini", "other"]
            text = "What is the capital of France?"
            answer = client.chat.completions.create(
                model="mini", messages=[{"role": "user", "content": text}], temperature=0
            )
            said = answer.choices[0].message.content or ""
            stream = client.completions.create(
                model="mini", extra_body=ENDLESS, prompt="", stream=True
            )
            chunks = iter(stream)
            next(chunks)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("stopping")
            with httpx.Client(base_url=url, trust_env=False) as http:
                assert http.get("/health").json() == {"status": "draining"}
                refused = http.post(
                    "/v1/completions", json={}, headers={"Authorization": "Bearer a-key"}
                )
                assert refused.status_code == 503 and refused.headers["retry-after"]
                assert refused.json()["error"]["code"] == "server_stopping"
            assert [chunk.choices[0].finish_reason for chunk in chunks][-1] in ("length", "abort")
        code, rest = server.end()
    assert code == 0
    log = "".join(server.lines) + rest
    entries = [json.loads(line) for line in log.splitlines()]
    [request, *_] = [entry for entry in entries if entry.get("event") == "request"]
    assert request["finish"] == "stop" and request["generated_tokens"] > 0
    assert answer.id in request["id"]
    for secret in ("a-key", text, said):
        assert secret not in log


@pytest.mark.slow
def test_requests_that_take_too_long_to_end_are_aborted() -> None:
    with ServeProcess("--shutdown-timeout", "0.2") as server:
        url = server.url()
        with httpx.stream("POST", f"{url}/v1/completions", json=ENDLESS, trust_env=False) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "abort"
        assert server.end()[0] == 0


@pytest.mark.slow
def test_a_second_signal_ends_at_once() -> None:
    with ServeProcess() as server:
        url = server.url()
        with httpx.stream("POST", f"{url}/v1/completions", json=ENDLESS, trust_env=False) as answer:
            next(answer.iter_lines())
            server.process.send_signal(signal.SIGINT)
            server.wait_for("stopping")
            server.process.send_signal(signal.SIGINT)
            assert server.end()[0] == 130


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_engine_ends_the_process(stream: bool) -> None:
    support = str(Path(__file__).parents[1] / "support")
    with ServeProcess(code=DYING, PYTHONPATH=support) as server:
        url = server.url()
        body = {"prompt": [1, 2], "stream": stream}
        answer = httpx.post(f"{url}/v1/completions", json=body, trust_env=False)
        assert answer.status_code == (200 if stream else 503)
        assert "engine_dead" in answer.text and "fire" not in answer.text
        code, rest = server.end()
    assert code == 70
    assert "on fire" in rest  # the operator is told


def test_a_taken_port_is_told_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port, "--model", "/no/such/model"]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{port}" in error and error.count("\n") == 1


@pytest.mark.slow
def test_an_open_server_without_a_key_warns() -> None:
    with ServeProcess("--host", "0.0.0.0") as server:
        server.wait_for("WARNING anyone who reaches 0.0.0.0")
        assert server.url().startswith("http://0.0.0.0:")


@pytest.mark.slow
def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "quire.sock"
    with ServeProcess("--uds", str(path)) as server:
        assert server.url() == f"unix:{path}"
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://quire") as client:
            assert client.get("/health").status_code == 200
        server.process.terminate()
        assert server.end()[0] == 0
    assert not path.exists()


def test_connections_do_not_hold_back_small_pieces() -> None:
    """asyncio turns Nagle's algorithm off where it knows that a socket is TCP's."""
    with Address(ServerOptions(port=0)).bind() as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_unix_socket_that_a_killed_server_left(tmp_path: Path) -> None:
    path = tmp_path / "quire.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    address = Address(ServerOptions(uds=str(path)))
    with address.bind() as listener:
        listener.listen()
        with pytest.raises(ConfigError, match="in use"), address.bind():
            raise AssertionError
    path.write_text("a file of someone's")
    with pytest.raises(ConfigError, match="in use"), address.bind():
        raise AssertionError
    assert path.read_text()


def test_help_needs_no_web_framework() -> None:
    code = (
        "import sys; from quire.cli import main; main(['serve', '--help']);"
        "print({'torch', 'starlette', 'uvicorn', 'pydantic', 'openai'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: quire serve") and done.stdout.endswith("set()\n")
