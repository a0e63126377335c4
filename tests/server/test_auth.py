"""API keys: everything but /health is refused without one, before its body is read; and CORS."""

import json
from pathlib import Path

import pytest

from live_server import TEXT, live_server, raw_request
from quire.errors import ConfigError
from quire.server import middleware
from quire.server.options import ServerOptions

KEYS = ["first-key", "second-key"]
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


def test_every_path_but_one_needs_a_key() -> None:
    with live_server(keys=KEYS) as live, live.client() as client:
        for operation in live.app.operations:
            for method in operation.methods:
                path = operation.path.replace("{model:path}", "tiny").replace("{response_id}", "r")
                answer = client.request(method, path)
                assert answer.status_code == (200 if path == "/health" else 401), path
        for path in ("/nope", "/health/", "/health/../metrics", "/docs"):
            assert client.get(path).status_code == 401


def test_keys() -> None:
    with live_server(keys=KEYS) as live:
        for key in KEYS:
            with live.openai(key) as client:
                answer = client.chat.completions.create(model="tiny", messages=CHAT["messages"])
            assert answer.choices[0].message.content == TEXT
        with live.client() as http:
            for wrong in ("", "Bearer", "Bearer first-key2", "Bearer first-ke", "Basic first-key",
                          "first-key", "Bearer FIRST-KEY", "Bearer first-key second-key"):  # fmt: skip
                answer = http.get("/v1/models", headers={"Authorization": wrong})
                assert answer.status_code == 401, wrong
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            right = {"Authorization": "bearer second-key"}
            assert http.get("/v1/models", headers=right).status_code == 200


def test_a_body_without_a_key_is_not_read() -> None:
    with live_server(keys=KEYS) as live, live.connect() as connection:
        connection.sendall(raw_request("/v1/completions", b"a" * 10_000)[:200])  # and no more comes
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr(middleware.hmac, "compare_digest", compare)
    with live_server(keys=KEYS) as live, live.client() as client:
        client.get("/v1/models", headers={"Authorization": "Bearer first-key"})
    assert len(compared) == len(KEYS)
    assert all(len(left) == len(right) == 32 for left, right in compared)


def test_metrics_can_be_open() -> None:
    with (
        live_server(keys=KEYS, options=ServerOptions(open_metrics=True)) as live,
        live.client() as client,
    ):
        assert client.get("/metrics").status_code == 200
        assert client.get("/load").status_code == 401


def test_a_browser_is_shown_the_page_that_asks_for_the_key() -> None:
    with live_server(keys=KEYS) as live, live.client() as client:
        answer = client.get("/", headers={"Accept": "text/html,*/*"})
        assert answer.status_code == 401 and 'id="key"' in answer.text
        assert client.get("/", headers={"Accept": "*/*"}).json()["error"]


def test_prefixes_are_not_shared_between_keys() -> None:
    body = {"prompt": "Hello there! " * 20, "max_tokens": 1}
    cached = []
    with live_server(keys=KEYS) as live, live.client() as client:
        for key in ("first-key", "first-key", "second-key"):
            answer = client.post(
                "/v1/completions", json=body, headers={"Authorization": f"Bearer {key}"}
            )
            cached.append(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == cached[2] == 0 and cached[1] > 0


def test_where_keys_come_from(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("b\n\n  c \n")
    options = ServerOptions(api_key=["a"], api_key_file=str(file))
    assert options.keys({"QUIRE_API_KEY": "d, e"}) == ["a", "b", "c", "d", "e"]
    assert ServerOptions().keys({}) == []
    assert "secret" not in repr(ServerOptions(api_key=["secret"]))
    file.write_text("\n")
    for wrong in (
        {"api_key_file": str(file)},
        {"api_key_file": "/no/such"},
        {"api_key": ["a b"]},
        {"api_key": [""]},
    ):
        with pytest.raises(ConfigError):
            ServerOptions(**wrong).keys({})


@pytest.mark.parametrize("origin", ["https://app.example", "https://evil.example"])
def test_cors(origin: str) -> None:
    options = ServerOptions(allowed_origins=["https://app.example"])
    allowed = origin == "https://app.example"
    ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    forget = {**ask, "Access-Control-Request-Method": "DELETE"}
    with live_server(keys=KEYS, options=options) as live, live.client() as client:
        preflight = client.options("/v1/chat/completions", headers=ask)
        to_forget = client.options("/v1/responses/resp_1", headers=forget)
        refused = client.post(
            "/v1/chat/completions", content=json.dumps(CHAT), headers={"Origin": origin}
        )
    assert (to_forget.status_code == 200) == allowed
    assert (preflight.status_code == 200) == allowed
    assert refused.status_code == 401
    assert ("access-control-allow-origin" in refused.headers) == allowed


def test_cors_is_off() -> None:
    with live_server() as live, live.client() as client:
        answer = client.get("/v1/models", headers={"Origin": "https://app.example"})
        assert "access-control-allow-origin" not in answer.headers
