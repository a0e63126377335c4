"""The command line of `quire serve`: flags, the configuration file, and what is wrong with either."""

from pathlib import Path
from typing import Any

import pytest

from quire.cli import main
from quire.config import EngineConfig
from quire.server import run
from quire.server.options import ServerOptions

Served = list[tuple[EngineConfig, ServerOptions]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    calls: Served = []

    def serve(config: EngineConfig, options: ServerOptions) -> int:
        calls.append((config, options))
        return 0

    monkeypatch.setattr(run, "serve", serve)
    return calls


def test_defaults(served: Served) -> None:
    assert main(["serve"]) == 0
    assert served == [(EngineConfig(), ServerOptions())]
    assert served[0][1].host == "127.0.0.1"


def test_flags(served: Served) -> None:
    arguments = [
        "serve",
        "some/model",
        "--port",
        "9000",
        "--api-key",
        "a",
        "--api-key",
        "b",
        "--max-model-len",
        "2k",
    ]
    assert main(arguments) == 0
    [(config, options)] = served
    assert (config.model, config.max_model_len) == ("some/model", 2000)
    assert (options.port, options.api_key) == (9000, ["a", "b"])


def test_exit_code_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "serve", lambda config, options: 70)
    assert main(["serve"]) == 70


def config_file(folder: Path, text: str) -> str:
    path = folder / "server.yaml"
    path.write_text(text)
    return str(path)


def test_flags_come_before_the_configuration_file(served: Served, tmp_path: Path) -> None:
    path = config_file(
        tmp_path,
        "model: from/file\nport: 9000\nhost: 0.0.0.0\napi-key: [a, b]\nmax_model_len: 2k\nseed: null\n"
        "enable-prefix-caching: false\nopen-metrics: true\nhf-overrides: {a: {b: 1}}\n",
    )
    assert main(["serve", "--config", path, "--port", "1", "--api-key=c"]) == 0
    assert main(["serve", "mine", f"--config={path}"]) == 0
    (config, options), (other, _) = served
    assert (options.port, options.host, options.api_key) == (1, "0.0.0.0", ["c"])
    assert options.open_metrics and not config.enable_prefix_caching
    assert (config.model, config.max_model_len) == ("from/file", 2000)
    assert config.hf_overrides == {"a": {"b": 1}}
    assert other.model == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 9000", "unknown key 'prot'; did you mean 'port'?"),
        ("no-open-metrics: true", "unknown key 'no-open-metrics'"),
        ("config: other.yaml", "unknown key 'config'"),
        ("port: nine", "'nine' is not a whole number"),
        ("open-metrics: 1", "must be true or false"),
        ("- port", "must hold `flag: value` lines"),
        ("a: b: c", "cannot be read as YAML"),
        ("!!python/object/apply:os.system [true]", "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_in_a_configuration_file(
    text: str, message: str, tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--config", config_file(tmp_path, text)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not served


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 65536}, "port must be between"),
        ({"max_request_bytes": 0}, "max_request_bytes must be above 0"),
        ({"shutdown_timeout": -1}, "shutdown_timeout must be 0 or more"),
        ({"log_format": "xml"}, "log_format must be text or json"),
        ({"ssl_keyfile": "key.pem"}, "give ssl_certfile too"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerOptions(**options)


def test_the_model_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "a", "--model", "b"]) == 2
    assert "given twice" in capsys.readouterr().err


def test_a_certificate_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--ssl-certfile", "/no/such.pem", "--model", "/no/such"]) == 2
    assert "TLS certificate cannot be used" in capsys.readouterr().err


def test_a_configuration_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", "/no/such.yaml"]) == 2
    assert "cannot be read as YAML" in capsys.readouterr().err
