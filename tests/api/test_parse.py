"""Bodies to models: strict types, bounds, names, and no exception but a RequestError whatever comes."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from quire.api import limits
from quire.api.errors import error_body
from quire.api.parse import parse
from quire.api.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    ResponsesRequest,
    TokenizeRequest,
)
from quire.api.protocol.fields import Body, SamplingFields
from quire.api.protocol.refusals import CHAT, COMMON, COMPLETION, RESPONSES
from quire.errors import InvalidParamsError, RequestError, UnknownParamError, UnsupportedParamError
from quire.sampling_params import SamplingParams

USER = {"role": "user", "content": "x"}
BODIES: dict[type[Body], dict[str, Any]] = {
    CompletionRequest: {"prompt": "x"},
    ChatCompletionRequest: {"messages": [USER]},
    ResponsesRequest: {"input": "x"},
    TokenizeRequest: {"prompt": "x"},
    DetokenizeRequest: {"tokens": [1]},
}


def refusal(model: type[Body], body: Any, *, allow_unknown: bool = False) -> RequestError:
    """The error that a body is refused with."""
    with pytest.raises(RequestError) as caught:
        parse(model, body, allow_unknown)
    status, answer = error_body(caught.value)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert len(json.dumps(answer)) < 17_000
    return caught.value


def completion(**fields: Any) -> RequestError:
    return refusal(CompletionRequest, {"prompt": "x", **fields})


def chat_of(*messages: Any) -> RequestError:
    return refusal(ChatCompletionRequest, {"messages": list(messages)})


@pytest.mark.parametrize("model", BODIES)
def test_the_least_body(model: type[Body]) -> None:
    request, warnings = parse(model, json.dumps(BODIES[model]).encode())
    assert warnings == ()
    assert request == parse(model, BODIES[model])[0]


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"nonsense", b"\xff\xfe", b'{"prompt": NaN}', b'{"prompt": Infinity}', b"[" * 5000,
     b'{"prompt": "\\ud800"}', b"\x00", b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_no_json(raw: bytes) -> None:
    assert "not valid JSON" in refusal(CompletionRequest, raw).message


@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"x"', b"true"])
def test_no_object(raw: bytes) -> None:
    assert "must be a JSON object" in refusal(CompletionRequest, raw).message


def test_bounds_of_any_json() -> None:
    deep: Any = 1
    for _ in range(limits.JSON_DEPTH):
        deep = {"a": deep}
    chat = {"messages": [USER]}
    assert (
        "nested deeper"
        in refusal(ChatCompletionRequest, {**chat, "chat_template_kwargs": deep}).message
    )
    wide = {f"f{i}": 1 for i in range(limits.OBJECT_KEYS + 1)}
    assert "more than 4096 fields" in refusal(CompletionRequest, wide).message
    for number in (2**63, -(2**63) - 1):
        body = {**chat, "chat_template_kwargs": {"a": [number]}}
        assert "64 bits" in refusal(ChatCompletionRequest, body).message
    for value in (math.nan, math.inf):
        body = {**chat, "chat_template_kwargs": {"a": [value]}}
        assert "not finite" in refusal(ChatCompletionRequest, body).message


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", True), ("temperature", "1"), ("temperature", 2.5), ("top_p", 0), ("n", True),
     ("n", 1.0), ("n", 0), ("n", 10**9), ("top_k", 2**62), ("seed", 1e300), ("max_tokens", -1),
     ("max_tokens", 0), ("stop", ["a"] * 5), ("stop", ["a" * 257]), ("stop", ""), ("stop", [1]),
     ("stop_token_ids", [True]), ("stop_token_ids", [-1]), ("allowed_token_ids", []),
     ("logit_bias", {"x": 1}), ("logit_bias", {"1": 101}), ("logit_bias", {"1": True}),
     ("logit_bias", {" 1": 1}), ("logit_bias", {str(i): 0 for i in range(1025)}),
     ("presence_penalty", 3), ("repetition_penalty", 0), ("min_p", -0.1), ("logprobs", True),
     ("logprobs", -2), ("prompt", [[1], []]), ("prompt", []), ("prompt", [True]), ("prompt", [1.0]),
     ("prompt", ["a", 1]), ("prompt", {"prompt": "x"}), ("prompt", ["a"] * 129), ("prompt", None),
     ("timeout", 0), ("timeout", -1), ("cache_salt", ""), ("cache_salt", "a" * 129),
     ("request_id", "a\nb"), ("request_id", "a" * 129), ("request_id", "ü"), ("user", 5),
     ("model", "m" * 100_000), ("stream", "yes"), ("stream", 1), ("bad_words", [""]), ("echo", 1),
     ("stream_options", {"include_usage": True})],
)  # fmt: skip
def test_values_that_are_refused(field: str, value: Any) -> None:
    error = completion(**{field: value})
    assert isinstance(error, InvalidParamsError)
    assert error.param is not None and error.param.startswith(field)
    assert field in error.message


def test_the_deepest_fault_is_told() -> None:
    error = chat_of(USER, {"role": "user", "content": [{"type": "text", "text": 5}]})
    assert error.param == "messages[1].content[0].text"
    assert error.message == "messages[1].content[0].text must be a valid string"


def test_many_faults_are_ten_lines() -> None:
    error = refusal(CompletionRequest, {f"field{i}": i for i in range(1000)})
    assert error.message.count(";") <= limits.VALIDATION_ERRORS + 1
    assert len(error.message) < 2000


@pytest.mark.parametrize(
    ("given", "meant"),
    [("temprature", "temperature"), ("max_token", "max_tokens"), ("logprob", "logprobs")],
)
def test_an_unknown_field_names_its_neighbour(given: str, meant: str) -> None:
    error = completion(**{given: 1})
    assert isinstance(error, UnknownParamError)
    assert error.param == given
    assert f"did you mean '{meant}'?" in error.message


def test_unknown_fields_within() -> None:
    error = chat_of({"role": "user", "content": "x", "nmae": "y"})
    assert error.param == "messages[0].nmae"
    assert "did you mean 'name'?" in error.message


def test_unknown_fields_may_be_let_pass() -> None:
    body = {"messages": [{**USER, "zzz": 1}], "temprature": 1, "n": 2}
    before = copy.deepcopy(body)
    request, warnings = parse(ChatCompletionRequest, body, True)
    assert body == before
    assert (request.n, request.messages[0].content) == (2, "x")
    assert sorted(warnings) == [
        "unknown field 'messages[0].zzz'; it was ignored",
        "unknown field 'temprature'; did you mean 'temperature'?; it was ignored",
    ]
    bad = {**body, "n": "many"}
    assert refusal(ChatCompletionRequest, bad, allow_unknown=True).param == "n"
    guided = {**body, "guided_json": {}}
    error = refusal(ChatCompletionRequest, guided, allow_unknown=True)
    assert isinstance(error, UnsupportedParamError), "it would change the answer"


@pytest.mark.parametrize(
    ("model", "table"),
    [(CompletionRequest, COMPLETION), (ChatCompletionRequest, CHAT), (ResponsesRequest, RESPONSES)],
)
def test_what_is_not_served_is_refused_by_name(model: type[Body], table: Any) -> None:
    assert set(COMMON) <= set(table)
    for name, entry in table.items():
        assert name not in model.model_fields
        error = refusal(model, {**BODIES[model], name: {"some": "thing"}})
        assert isinstance(error, UnsupportedParamError)
        assert error.param == name
        assert error.message == f"{name} is not supported: {entry.reason}"
        for neutral in (None, *entry.neutral):
            parse(model, {**BODIES[model], name: neutral})


def test_answers_may_be_given_back_as_the_client_holds_them() -> None:
    answer = ChatCompletionMessage(role="assistant", content="b", annotations=[])
    for dumped in (answer.model_dump(), answer.model_dump(exclude_none=True)):
        request, _ = parse(ChatCompletionRequest, {"messages": [USER, dumped, USER]})
        assert request.messages[1].for_template() == {"role": "assistant", "content": "b"}
    text = ResponseOutputText(type="output_text", text="b", annotations=[], logprobs=[])
    item = ResponseOutputMessage(
        id="m", type="message", role="assistant", status="completed", content=[text]
    )
    for dumped in (item.model_dump(), item.model_dump(exclude_none=True)):
        request_, _ = parse(ResponsesRequest, {"input": [USER, dumped, USER]})
        assert request_.messages[1] == {"role": "assistant", "content": "b"}


def test_true_is_not_one() -> None:
    assert isinstance(completion(best_of=True), UnsupportedParamError)


@pytest.mark.parametrize(
    "message",
    [{"role": "user"}, {"role": "user", "content": None}, {"content": "x"}, {"role": "nobody", "content": ""},
     {"role": "assistant"}, {"role": "tool", "content": "x"}, {"role": "user", "content": 5}, "x", None,
     {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1"}}]},
     {"role": "user", "content": [{"type": "file", "file": {}}]}, {"role": "user", "content": [5]},
     {**USER, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": ""}}]}],
)  # fmt: skip
def test_messages_that_are_refused(message: Any) -> None:
    assert (chat_of(message).param or "").startswith("messages[0]")


def test_chat_fields_that_contradict_each_other() -> None:
    for more, param in (
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        (
            {"add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message",
        ),
        ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    ):
        assert refusal(ChatCompletionRequest, {"messages": [USER], **more}).param == param


def test_items_of_responses_that_are_refused() -> None:
    for item in (
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "item_reference", "id": "msg_1"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
        {"role": "user", "content": [{"type": "input_text"}]},
    ):
        error = refusal(ResponsesRequest, {"input": [item]})
        assert (error.param or "").startswith("input[0]")


def test_sampling_fields_are_those_of_sampling_params() -> None:
    made = SamplingParams()
    for name in SamplingFields.model_fields:
        assert hasattr(made, name)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([2**63, -1, 0, "text", "user", "\ud800", 10**400, "input_text", [], {}]),
)
ANY = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "x", "tool_calls"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_body_is_read_or_refused(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(list(BODIES)))
    names = st.sampled_from([*model.model_fields, *model.refused, "unknown"])
    body = {**BODIES[model], **data.draw(st.dictionaries(names, ANY, max_size=4))}
    try:
        parse(model, body, data.draw(st.booleans()))
    except RequestError as error:
        assert 400 <= error_body(error)[0] < 500


@settings(max_examples=100, deadline=None)
@given(
    raw=st.one_of(
        st.binary(max_size=40), ANY.map(lambda value: repr(value).encode("utf-8", "replace"))
    )
)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        parse(ChatCompletionRequest, raw)
    except RequestError as error:
        assert error_body(error)[0] == 400
