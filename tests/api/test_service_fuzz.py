"""Bodies of random fields through the whole service: an answer that is JSON, or an error of the caller's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api_service import CALL, service
from quire.api.calls import Reply
from quire.api.errors import error_body
from quire.api.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    ResponsesRequest,
    TokenizeRequest,
)
from quire.api.service import Service
from quire.errors import QuireError

TEXT = st.text("ab é👋\x00<|s>/\ud800{%}", max_size=6)
FLAG = st.none() | st.booleans()
IDS = st.lists(st.integers(-1, 501), max_size=3)
NUMBER = st.one_of(
    st.integers(-2, 6), st.floats(-3, 3), st.sampled_from([1e308, 1e-300, 0.0, 2**62, 1e-6])
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]),
        "content": TEXT,
    },
    optional={"name": TEXT, "tool_call_id": TEXT},
)
SAMPLING: dict[str, st.SearchStrategy[Any]] = {
    **{
        name: NUMBER
        for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "seed",
                     "frequency_penalty", "repetition_penalty", "min_tokens", "timeout")
    },
    "stop": TEXT | st.lists(TEXT, max_size=3),
    "stop_token_ids": IDS,
    "allowed_token_ids": IDS,
    "bad_words": st.lists(TEXT, max_size=3),
    "logit_bias": st.dictionaries(st.integers(-1, 501).map(str), NUMBER, max_size=3),
    "ignore_eos": FLAG,
    "include_stop_str_in_output": FLAG,
    "skip_special_tokens": FLAG,
    "spaces_between_special_tokens": FLAG,
    "cache_salt": TEXT,
    "cache_report": FLAG,
    "stream": FLAG,
    "request_id": TEXT,
    "user": TEXT,
}  # fmt: skip
CHOICES = {
    **SAMPLING,
    "n": st.integers(0, 3),
    "max_tokens": st.integers(-1, 20),
    "prompt_logprobs": st.integers(-2, 21),
    "return_token_ids": FLAG,
    "return_tokens_as_token_ids": FLAG,
}
TEMPLATE = {
    "add_generation_prompt": FLAG,
    "continue_final_message": FLAG,
    "chat_template_kwargs": st.dictionaries(TEXT, TEXT, max_size=2),
}
MESSAGES = {"messages": st.lists(MESSAGE, min_size=1, max_size=3)}
PROMPT = st.one_of(TEXT, IDS, st.lists(TEXT, max_size=3), st.lists(IDS, max_size=3))
Fields = dict[str, st.SearchStrategy[Any]]


def bodies(model: Any, required: Fields, optional: Fields) -> st.SearchStrategy[tuple[Any, Any]]:
    """Bodies with a few of the optional fields: with many, hardly one would be served."""
    names = st.lists(st.sampled_from(sorted(optional)), max_size=3, unique=True)
    return names.flatmap(
        lambda chosen: st.tuples(
            st.just(model),
            st.fixed_dictionaries({**required, **{name: optional[name] for name in chosen}}),
        )
    )


BODIES = st.one_of(
    bodies(
        CompletionRequest,
        {"prompt": PROMPT},
        {**CHOICES, "echo": FLAG, "logprobs": st.integers(-2, 21)},
    ),
    bodies(
        ChatCompletionRequest,
        MESSAGES,
        {**CHOICES, **TEMPLATE, "logprobs": FLAG, "top_logprobs": st.integers(-1, 21)},
    ),
    bodies(
        ResponsesRequest,
        {"input": TEXT},
        {**SAMPLING, "instructions": TEXT, "max_output_tokens": st.integers(0, 20)},
    ),
    bodies(TokenizeRequest, {}, {**MESSAGES, **TEMPLATE, "prompt": TEXT}),
    bodies(DetokenizeRequest, {"tokens": IDS}, {"model": TEXT}),
)


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(BODIES, min_size=3, max_size=6))
def test_any_body_is_answered_or_refused(drawn: list[tuple[Any, dict[str, Any]]]) -> None:
    async def run() -> None:
        async with service() as made:
            for model, body in drawn:
                await ask(made, model, body)

    asyncio.run(run())


async def ask(made: Service, model: Any, body: dict[str, Any]) -> None:
    """One call, from its body to its last event."""
    endpoints = {
        CompletionRequest: made.completions,
        ChatCompletionRequest: made.chat_completions,
        ResponsesRequest: made.responses,
        TokenizeRequest: made.tokenize,
        DetokenizeRequest: made.detokenize,
    }
    try:
        request, _ = made.parse(model, body)
        answer = await endpoints[model](request, CALL)
    except QuireError as error:
        status, told = error_body(error)
        assert 400 <= status < 500
        json.dumps(told)
        return
    if isinstance(answer, Reply):
        json.dumps(answer.body, allow_nan=False)
        return
    async for event in answer.events:
        json.dumps(event.data, allow_nan=False)
        assert "error" not in event.data
