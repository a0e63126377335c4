"""`VLLM` on the bundled model, in process and remote; and langchain_community's own on quire."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import openai
import pytest
from langchain_core.outputs import GenerationChunk
from pydantic import ValidationError

import quire
from langchain_quire import VLLM
from quire.engine.engine import Engine
from quire.errors import UnsupportedParamError
from served_engine import Ended

Make = Callable[..., VLLM]
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
ENDLESS: dict[str, Any] = {"max_new_tokens": 1900, "ignore_eos": True}


@pytest.fixture
def make_llm(where: dict[str, Any]) -> Make:
    return lambda **given: VLLM(**{"temperature": 0, "max_new_tokens": 8, **where, **given})


def test_every_argument_of_upstreams_is_taken() -> None:
    llm = VLLM(
        model=str(quire.bundled_model()), tensor_parallel_size=1, trust_remote_code=True, n=2,
        best_of=3, presence_penalty=0.1, frequency_penalty=0.1, temperature=0.8, top_p=0.95, top_k=10,
        use_beam_search=False, stop=["x"], ignore_eos=False, max_new_tokens=12, logprobs=1,
        dtype="float32", download_dir=None, vllm_kwargs={"max_num_seqs": 4}, client=None, cache=False,
    )  # fmt: skip
    [texts] = llm.generate([FRANCE]).generations
    assert len(texts) == 2
    llm.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_beam_search": True}, r"quire\.LLM\.beam_search"),
        ({"n": 3, "best_of": 2}, "best_of=2 texts cannot give n=3"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        VLLM(**options)


def test_texts_and_what_is_known_of_them(make_llm: Make) -> None:
    result = make_llm(logprobs=2).generate([FRANCE, ITALY])
    texts = [of_one[0].text for of_one in result.generations]
    assert texts[0].startswith(" Paris.") and texts[1].startswith(" Rome.")
    info = result.generations[0][0].generation_info
    assert info is not None and info["finish_reason"] == "length"
    assert len(info["logprobs"]["tokens"]) == 8
    assert result.llm_output is not None and result.llm_output["model_name"] == "quire-mini"
    usage = result.llm_output["token_usage"]
    assert usage["completion_tokens"] == 16
    assert usage["total_tokens"] == usage["prompt_tokens"] + 16


async def test_awaited_and_streamed_texts_are_the_same(make_llm: Make) -> None:
    llm = make_llm()
    text = llm.invoke(FRANCE)
    assert await llm.ainvoke(FRANCE) == text
    assert await llm.abatch([FRANCE, ITALY]) == llm.batch([FRANCE, ITALY])
    assert "".join(llm.stream(FRANCE)) == text
    assert "".join([piece async for piece in llm.astream(FRANCE)]) == text
    chunks = list(llm._stream(FRANCE))
    whole = sum(chunks[1:], chunks[0])
    assert isinstance(whole, GenerationChunk) and whole.generation_info is not None
    assert whole.generation_info["finish_reason"] == "length"
    assert whole.generation_info["token_usage"]["completion_tokens"] == 8


def test_all_n_texts_come_back_and_seeds_repeat(make_llm: Make) -> None:
    llm = make_llm(n=3, temperature=1.5, seed=3)
    result = llm.generate(["Once upon", FRANCE])
    texts = [[one.text for one in of_one] for of_one in result.generations]
    assert [len(of_one) for of_one in texts] == [3, 3] and len(set(texts[0])) > 1
    assert [one.text for one in llm.generate(["Once upon"]).generations[0]] == texts[0]
    for options in ({"n": 2}, {"best_of": 2}):
        with pytest.raises(UnsupportedParamError, match="a stream has one text"):
            list(make_llm(temperature=1, **options).stream(FRANCE))


def test_best_of_keeps_the_likeliest(make_llm: Make) -> None:
    options = {"temperature": 1.5, "seed": 3, "logprobs": 0}
    [every] = make_llm(n=4, **options).generate(["Once upon"]).generations

    def total(one: Any) -> float:
        return float(sum(one.generation_info["logprobs"]["token_logprobs"]))

    expected = [one.text for one in sorted(every, key=total, reverse=True)][:2]
    [best] = make_llm(n=2, best_of=4, **options).generate(["Once upon"]).generations
    assert [one.text for one in best] == expected


def test_more_prompts_than_one_request_takes(make_llm: Make) -> None:
    llm = make_llm(max_new_tokens=2)
    prompts = [FRANCE, ITALY] * 70
    texts = llm.batch(prompts)
    assert texts == llm.batch([FRANCE, ITALY]) * 70
    assert asyncio.run(llm.abatch(prompts)) == texts if llm.engine else True


def test_stops_and_fields_of_a_call(make_llm: Make) -> None:
    llm = make_llm(stop=["Paris"])
    assert llm.invoke(FRANCE) == " "
    assert llm.invoke(FRANCE, stop=["."]) == " Paris"
    assert llm.bind(stop=[".", "x"]).invoke(FRANCE) == " Paris"
    assert len(llm.get_token_ids(llm.invoke(ITALY, max_new_tokens=3))) == 3
    with pytest.raises(openai.BadRequestError, match="unknown field 'lora_request'"):
        llm.invoke(FRANCE, lora_request="x")


def test_a_closed_stream_aborts_its_request(make_llm: Make, ended: Ended) -> None:
    stream = make_llm(**ENDLESS).stream("Once upon")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert ended.next().finish_reasons == ("abort",)
    assert ended.is_idle()


async def test_a_cancelled_task_aborts_its_requests(
    make_llm: Make, ended: Ended, engine: Engine
) -> None:
    task = asyncio.create_task(make_llm(**ENDLESS).agenerate(["Once upon", "A day"]))
    while engine.load().num_running < 2:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    records = [await ended.anext() for _ in range(2)]
    assert [record.finish_reasons for record in records] == [("abort",)] * 2
    assert ended.is_idle()


def test_upstreams_own_class_runs_on_quire(monkeypatch: pytest.MonkeyPatch) -> None:
    """What imports vllm gets quire, where quire stands under that name."""
    monkeypatch.setitem(sys.modules, "vllm", quire)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its package is no longer looked after
        from langchain_community.llms.vllm import VLLM as Upstreams
    llm = Upstreams(
        model=str(quire.bundled_model()), temperature=0, max_new_tokens=8, trust_remote_code=True
    )
    assert [text[:7] for text in llm.batch([FRANCE, ITALY])] == [" Paris.", " Rome. "]
    assert llm.invoke(FRANCE, stop=["."]) == " Paris"
