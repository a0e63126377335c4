"""/v1/embeddings, /v1/rerank and /v1/score over HTTP, by the official client where it has them."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import Future
from contextlib import asynccontextmanager

import httpx
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from api_service import service as scripted_service
from quire import LLM, Engine, EngineConfig
from quire.api.calls import Call
from quire.api.protocol import EmbeddingRequest
from quire.api.service import Service, ServiceOptions
from quire.errors import (
    EngineDrainingError,
    QueueFullError,
    RequestTimeoutError,
    UnsupportedTaskError,
)
from quire.server.app import create_app
from quire.server.options import ServerOptions
from tiny_encoders import SIZE, make_encoder

KEY = "sk-secret"
TEXTS = ["one text", "another text that is longer", "é"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("endpoint") / "bert", prompts={"query": "find: "})


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("endpoint") / "reranker", scores=True)


@asynccontextmanager
async def served(folder, *, names=("tiny",), keys=(), **options):
    """An HTTP client of a model's endpoint, without a socket."""
    with Engine(EngineConfig.from_options(model=str(folder), **options)) as engine:
        service = Service(engine, ServiceOptions(served_model_names=names))
        app = create_app(service, ServerOptions(), keys)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://quire") as client:
            client.service = service
            yield client
        await service.aclose()


@pytest.fixture(scope="module")
def expected(embedder):
    with LLM(str(embedder)) as llm:
        return [one.outputs.embedding for one in llm.embed(TEXTS)]


async def test_official_client(embedder, expected):
    async with served(embedder) as http:
        client = AsyncOpenAI(api_key="none", base_url="http://quire/v1", http_client=http)
        # Without a format the client asks for base64, and decodes it.
        for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = await client.embeddings.create(model="tiny", input=TEXTS, **options)
            found = [one.embedding for one in answer.data]
            if options.get("encoding_format") == "base64":
                found = [np.frombuffer(base64.b64decode(one), "<f4") for one in found]
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert answer.model == "tiny" and answer.object == "list"
        assert [one.index for one in answer.data] == [0, 1, 2]
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > len("".join(TEXTS))
        one = await client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=4)
        assert len(one.data) == 1 and len(one.data[0].embedding) == 4
        extra = {"prompt_name": "query", "use_activation": False}
        raw = await client.embeddings.create(model="tiny", input=TEXTS[0], extra_body=extra)
        assert len(raw.data[0].embedding) == SIZE
        with pytest.raises(openai.BadRequestError) as caught:
            await client.completions.create(model="tiny", prompt="hello")
        assert caught.value.code == "unsupported_task"


async def test_forms_of_input(embedder, expected):
    async with served(embedder) as http:
        ids = (await http.post("/tokenize", json={"prompt": TEXTS[0]})).json()["tokens"]
        for form, count in ((TEXTS[0], 1), ([TEXTS[0]], 1), (ids, 1), ([ids, ids], 2)):
            answer = (await http.post("/v1/embeddings", json={"input": form})).json()
            assert len(answer["data"]) == count
            np.testing.assert_allclose(answer["data"][-1]["embedding"], expected[0], atol=1e-6)
            assert answer["id"].startswith("embd-")


@pytest.mark.parametrize(
    "body, param, message",
    [
        ({}, "input", "input is missing"),
        ({"input": []}, "input", "at least 1"),
        ({"input": ""}, "input", "at least 1"),
        ({"input": ["a", ""]}, "input[1]", "at least 1"),
        ({"input": [[1], []]}, "input[1]", "at least 1"),
        ({"input": [[1], [9999]]}, "input[1]", "out of the vocabulary"),
        ({"input": ["a"] * 2049}, "input", "at most 2048"),
        ({"input": "x" * 500}, "input", "truncate_prompt_tokens=-1"),
        ({"input": "a", "dimensions": 33}, "dimensions", "33 is more than the 32"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "prompt_name": "nope"}, "prompt_name", "it has: query"),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "above 0"),
        ({"input": "a", "inputs": "b"}, "inputs", "did you mean 'input'"),
        ({"input": "a", "normalize": True}, "normalize", "write use_activation"),
        ({"input": "a", "stream": True}, "stream", "comes whole"),
        ({"input": "a", "priority": 3}, "priority", "--scheduling-policy priority"),
    ],
)
async def test_refusals(embedder, body, param, message):
    async with served(embedder) as http:
        answer = await http.post("/v1/embeddings", json=body)
        error = answer.json()["error"]
        assert answer.status_code == 400, error
        assert error["param"] == param and message in error["message"]
        assert error["type"] == "invalid_request_error"
        assert (await http.post("/v1/embeddings", json={"input": "fine"})).status_code == 200


async def test_rerank(reranker):
    documents = ["the first", {"text": "the second"}, "a third one"]
    with LLM(str(reranker)) as llm:
        ranked = llm.rerank("which?", ["the first", "the second", "a third one"])
    async with served(reranker) as http:
        bodies = []
        for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
            answer = await http.post(path, json={"query": "which?", "documents": documents})
            assert answer.status_code == 200, answer.text
            bodies.append(answer.json()["results"])
        assert bodies[0] == bodies[1] == bodies[2]
        assert [one["index"] for one in bodies[0]] == [one.index for one in ranked]
        assert [one["document"]["text"] for one in bodies[0]] == [one.document for one in ranked]
        assert [one["relevance_score"] for one in bodies[0]] == pytest.approx(
            [one.relevance_score for one in ranked], abs=1e-6
        )
        short = {"query": "which?", "documents": documents, "top_n": 1, "return_documents": False}
        answer = (await http.post("/v1/rerank", json=short)).json()
        assert list(answer["results"][0]) == ["index", "relevance_score"]
        assert len(answer["results"]) == 1 and answer["id"].startswith("rerank-")
        assert answer["usage"]["total_tokens"] > 20 and answer["model"] == "tiny"
        for body, param in (
            ({"query": "q"}, "documents"),
            ({"query": "q", "documents": []}, "documents"),
            ({"query": "q", "documents": ["a", "x" * 500]}, "documents[1]"),
            ({"query": "q", "documents": ["a"], "rank_fields": ["x"]}, "rank_fields"),
        ):
            refused = await http.post("/v1/rerank", json=body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
        refused = await http.post("/v1/embeddings", json={"input": "text"})
        assert refused.json()["error"]["code"] == "unsupported_task"


async def test_score(reranker, embedder):
    body = {"text_1": "which?", "text_2": ["the first", "the second"]}
    for folder in (reranker, embedder):
        with LLM(str(folder)) as llm:
            outputs = llm.score(body["text_1"], body["text_2"])
        async with served(folder) as http:
            for path in ("/v1/score", "/score"):
                answer = (await http.post(path, json=body)).json()
                assert [one["score"] for one in answer["data"]] == pytest.approx(
                    [one.outputs.score for one in outputs], abs=1e-6
                )
                assert [one["index"] for one in answer["data"]] == [0, 1]
            refused = await http.post(path, json={"text_1": ["a", "b"], "text_2": ["c"] * 3})
            assert refused.json()["error"]["param"] == "text_1"


async def test_keys_models_and_metrics(embedder):
    async with served(embedder, names=("tiny", "alias"), keys=(KEY,)) as http:
        body = {"input": "text", "model": "alias"}
        assert (await http.post("/v1/embeddings", json=body)).status_code == 401
        for path in ("/rerank", "/score"):
            assert (await http.post(path, json={})).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = await http.post("/v1/embeddings", json=body, headers=headers)
        assert answer.json()["model"] == "alias"
        named = await http.post(
            "/v1/embeddings", json=body, headers={**headers, "X-Request-Id": "mine"}
        )
        assert named.json()["id"] == "embd-mine"
        wrong = await http.post("/v1/embeddings", json={**body, "model": "x"}, headers=headers)
        assert wrong.status_code == 404
        text = (await http.get("/metrics", headers=headers)).text
        assert 'handler="/v1/embeddings",method="POST",status="2xx"' in text
        [line] = [one for one in text.splitlines() if one.startswith("vllm:prompt_tokens_total{")]
        assert float(line.rpartition(" ")[2]) == 2 * answer.json()["usage"]["prompt_tokens"]
        paths = (await http.get("/openapi.json", headers=headers)).json()["paths"]
        assert {
            "/v1/embeddings",
            "/v1/rerank",
            "/v2/rerank",
            "/rerank",
            "/v1/score",
            "/score",
        } <= set(paths)


async def test_a_generator_scores_and_embeds_or_says_why_not():
    async with scripted_service() as made:
        request, _ = made.parse(EmbeddingRequest, {"input": "text"})
        with pytest.raises(UnsupportedTaskError, match="it generates text"):
            await made.embeddings(request, Call("id"))


async def test_limits(embedder):
    """A full line refuses, a deadline ends, a cancelled call leaves nothing behind, and draining stops."""
    options = {"max_waiting_requests": 4, "max_num_seqs": 2}
    async with served(embedder, **options) as http:
        service = http.service
        engine = service.engine
        step = engine._loop.executor.execute
        loop = asyncio.get_running_loop()
        entered, gate = asyncio.Event(), []

        def wait(plan):
            if gate:
                loop.call_soon_threadsafe(entered.set)
                gate[0].result()
            return step(plan)

        engine._loop.executor.execute = wait

        def ask(count, **body):
            request, _ = service.parse(EmbeddingRequest, {"input": ["text"] * count, **body})
            return asyncio.ensure_future(service.embeddings(request, Call("id")))

        gate.append(Future())
        first = ask(50)  # more than may wait, but the line was empty
        await entered.wait()
        with pytest.raises(QueueFullError):
            await ask(1)
        gate.pop().set_result(None)
        assert len((await first).body["data"]) == 50
        with pytest.raises(RequestTimeoutError):
            await ask(3, timeout=1e-9)
        entered.clear()
        gate.append(Future())
        cancelled = ask(20)
        await entered.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        gate.pop().set_result(None)
        await asyncio.to_thread(engine.call, lambda scheduler: None)  # the abort is before it
        assert len((await ask(2)).body["data"]) == 2
        assert engine.load().requests == ()
        engine.call(lambda scheduler: scheduler.check())
        await asyncio.to_thread(engine.drain, 5.0)
        with pytest.raises(EngineDrainingError):
            await ask(1)
