"""`cache_report: true`: what of a prompt is cached, and the message in which a near miss first differs."""

from __future__ import annotations

from api_service import chat, complete, respond, service, stream_chat
from quire.api.service import ServiceOptions

SYSTEM = "You are the librarian of a small town, and you know every book of it by heart."


def conversation(question: str, system: str = SYSTEM) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"The quick brown fox jumps over the lazy dog. {question}"},
    ]


async def test_nothing_is_said_unasked() -> None:
    async with service() as made:
        assert "cache_report" not in await chat(made)


async def test_an_empty_cache() -> None:
    async with service() as made:
        report = (await chat(made, cache_report=True))["cache_report"]
    assert report["reused_tokens"] == 0
    assert report["difference"] is None


async def test_the_message_that_differs() -> None:
    async with service() as made:
        await chat(made, messages=conversation("What sleeps?"))
        body = await chat(made, messages=conversation("What jumps?"), cache_report=True)
        report, usage = body["cache_report"], body["usage"]
        assert report["reused_tokens"] == usage["prompt_tokens_details"]["cached_tokens"] > 0
        assert report["prompt_tokens"] == usage["prompt_tokens"]
        difference = report["difference"]
        assert difference["message"] == {"index": 1, "role": "user"}
        assert difference["position"] >= report["reused_tokens"]
        assert difference["prompt_text"].startswith(" jumps")
        assert difference["cached_text"].startswith(" sleep")
        assert difference["text_before"].endswith("What")

        other = conversation("What jumps?", SYSTEM.replace("librarian", "gardener"))
        report = (await chat(made, messages=other, cache_report=True))["cache_report"]
        assert report["difference"]["message"] == {"index": 0, "role": "system"}


async def test_it_is_on_the_first_chunk_of_a_stream() -> None:
    async with service() as made:
        await chat(made, messages=conversation("What sleeps?"))
        chunks = await stream_chat(made, messages=conversation("What jumps?"), cache_report=True)
    assert chunks[0]["cache_report"]["difference"]["message"]["index"] == 1
    assert not any("cache_report" in chunk for chunk in chunks[1:])


async def test_prompts_have_a_report_each() -> None:
    prompts = ["The quick brown fox jumps over the dog", "Another text"]
    async with service() as made:
        await complete(made, prompt=prompts[0])
        reports = (await complete(made, prompt=prompts, cache_report=True))["cache_report"]
    assert [report["reused_tokens"] > 0 for report in reports] == [True, False]
    assert all("message" not in (report["difference"] or {}) for report in reports)


async def test_salts_do_not_see_each_other() -> None:
    async with service() as made:
        await chat(made, messages=conversation("What sleeps?"), cache_salt="a")
        body = await chat(
            made, messages=conversation("What jumps?"), cache_salt="b", cache_report=True
        )
    assert (body["cache_report"]["reused_tokens"], body["cache_report"]["difference"]) == (0, None)


async def test_other_callers_prompts_are_not_quoted() -> None:
    """Without tenants and salts a cached prompt may be anyone's."""
    options = ServiceOptions(served_model_names=("tiny",), show_cached_text=False)
    for terms, own in (({}, False), ({"cache_salt": "mine"}, True)):
        async with service(options=options) as made:
            await chat(made, messages=conversation("What sleeps?"), **terms)
            body = await chat(
                made, messages=conversation("What jumps?"), cache_report=True, **terms
            )
        difference = body["cache_report"]["difference"]
        assert difference["message"]["index"] == 1 and difference["prompt_text"]
        assert (difference["cached_text"] is not None) == own


async def test_responses_have_one() -> None:
    async with service() as made:
        first = await respond(made, input="One", instructions=SYSTEM)
        second = await respond(
            made,
            input="Two",
            instructions=SYSTEM,
            previous_response_id=first["id"],
            cache_report=True,
        )
    assert second["cache_report"]["reused_tokens"] > 0
