"""/openapi.json tells the truth: it is valid, answers match it, and no request made from it gives a 5xx."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema_rs import validator_for

from live_server import Live, live_server
from quire.server.openapi import describe
from quire.server.options import ServerOptions


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server(options=ServerOptions(body_timeout=5)) as server:
        yield server


def validator(live: Live, path: str, method: str, status: str) -> Any:
    document = live.app.schema
    answer = document["paths"][path][method]["responses"][status]
    schema = answer["content"]["application/json"]["schema"]
    return validator_for({**schema, "components": document["components"]})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "n": 2},
        ),
        ("/v1/completions", {"prompt": "Hello", "logprobs": 2, "echo": True}),
        ("/v1/responses", {"input": "Hello"}),
        ("/tokenize", {"prompt": "Hello"}),
    ],
)
def test_answers_match_their_schemas(live: Live, path: str, body: dict[str, Any]) -> None:
    with live.client() as client:
        answer = client.post(path, json=body)
        wrong = client.post(path, json={**body, "bogus": 1})
    assert (answer.status_code, wrong.status_code) == (200, 400)
    validator(live, path, "post", "200").validate(answer.json())
    validator(live, path, "post", "400").validate(wrong.json())


def test_request_schemas_are_those_that_are_checked(live: Live) -> None:
    schemas = live.app.schema["components"]["schemas"]
    request = schemas["CompletionRequest"]
    assert request["additionalProperties"] is False
    assert {"prompt", "top_k", "min_p", "stream"} <= set(request["properties"])


def test_every_path_is_described_and_every_reference_leads_somewhere(live: Live) -> None:
    document = live.app.schema
    assert {"/v1/models/{model}", "/v1/responses/{response_id}/cancel", "/health"} <= set(
        document["paths"]
    )
    names = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(names) == len(set(names))
    references: list[str] = []

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            references.extend(value for key, value in node.items() if key == "$ref")
        for child in (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        ):
            collect(child)

    collect(document)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references) <= known


def test_keys_are_described(live: Live) -> None:
    document = describe(live.app.operations, guarded=True)
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    assert "security" in document["paths"]["/metrics"]["get"]
    assert "security" not in document["paths"]["/health"]["get"]


@pytest.mark.parametrize("examples", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_no_request_gives_a_server_error(live: Live, examples: int) -> None:
    """Schemathesis makes requests, right and wrong ones, from the description."""
    import hypothesis
    import schemathesis
    from schemathesis import checks

    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    schema.config.generation.update(modes=list(schemathesis.GenerationMode))
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def check(case: Any) -> None:
            response = case.call(timeout=20)
            case.validate_response(response, checks=[checks.not_a_server_error])
            assert response.status_code < 500

        check()
