"""Conversations through chat templates."""

from __future__ import annotations

import copy
import enum
from pathlib import Path
from typing import Any

import pytest

import tiny_tokenizers
from quire.errors import ConfigError, InvalidPromptError
from quire.hub import bundled_model
from quire.tokenizer import Tokenizer
from quire.tokenizer.chat import ChatTemplate
from quire.tokenizer.sandbox import TemplateSandbox

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer(tiny_tokenizers.byte_level())


def test_one_beginning_of_sequence(tok: Tokenizer) -> None:
    text = tok.render_chat([{"role": "system", "content": "be kind"}, USER])
    assert text == "<s><|system|>be kind</s><|user|>hi</s><|assistant|>"
    assert tok.encode(text, add_special_tokens=False).count(tok.bos_token_id) == 1


def test_generation_prompt_and_continuation(tok: Tokenizer) -> None:
    messages = [USER, {"role": "assistant", "content": "I am"}]
    closed = "<s><|user|>hi</s><|assistant|>I am"
    assert tok.render_chat(messages, add_generation_prompt=False) == closed + "</s>"
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert tok.render_chat(messages, **options) == closed
    with pytest.raises(InvalidPromptError, match="exclude each other"):
        tok.render_chat(messages, continue_final_message=True)


def test_parts_of_text_are_lines(tok: Tokenizer) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert "<|user|>a\nb</s>" in tok.render_chat([{"role": "user", "content": parts}])


def test_tools_and_arguments_are_written_as_json_once(tok: Tokenizer) -> None:
    def call(arguments: Any) -> dict[str, Any]:
        function = {"name": "add", "arguments": arguments}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": function}],
        }

    expected = '<|assistant|>[call]{"name": "add", "arguments": {"a": 1}}[/call]</s>'
    for arguments in ('{"a": 1}', {"a": 1}):
        text = tok.render_chat([USER, call(arguments)], tools=[TOOL])
        assert expected in text
        assert text.startswith('<s>[tools][{"type": "function", "function": {"name": "add"')
    assert '"arguments": {}' in tok.render_chat([USER, call("")])
    with pytest.raises(InvalidPromptError, match=r"messages\[1\].tool_calls\[0\].*no JSON"):
        tok.render_chat([USER, call('{"a": ')])


def test_the_callers_messages_stay_as_they_are(tok: Tokenizer) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "7", "tool_call_id": "1"},
    ]
    before = copy.deepcopy(messages)
    tok.render_chat(messages, tools=[TOOL])
    assert messages == before


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty"),
        ("hi", "must be a list of dicts"),
        (USER, "must be a list of dicts"),
        (None, "must be a list of dicts"),
        (["hi"], r"messages\[0\] must be a dict"),
        ([[USER]], r"messages\[0\] must be a dict"),
        ([{"content": "a"}], r"messages\[0\] needs a role"),
        ([USER, {"role": 3, "content": "a"}], r"messages\[1\] needs a role"),
        ([{"role": "user"}], r"messages\[0\].content must be text"),
        ([{"role": "user", "content": 3}], "content must be text or a list of parts, got int"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "'image_url'"),
        ([{"role": "user", "content": ["a"]}], "content.0. is of type 'str'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "content.0. is of type 'text'"),
        ([{"role": "assistant", "tool_calls": ["f"]}], "tool_calls must be a list of dicts"),
    ],
)
def test_messages_of_a_wrong_shape(tok: Tokenizer, messages: Any, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        tok.render_chat(messages)


@pytest.mark.parametrize(("tools", "message"), [("f", "must be a list"), ([3], r"tools\[0\]")])
def test_tools_of_a_wrong_shape(tok: Tokenizer, tools: Any, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        tok.render_chat([USER], tools=tools)


def test_no_template() -> None:
    tok = Tokenizer(tiny_tokenizers.byte_level(chat_template=None))
    with pytest.raises(InvalidPromptError, match=r"no chat template: pass chat_template="):
        tok.render_chat([USER])
    assert tok.render_chat([USER], chat_template="{{ messages[0].content }}!") == "hi!"
    tok.hf.chat_template = "set later"  # as code written for transformers does
    assert tok.render_chat([USER]) == "set later"


def test_template_of_the_call_of_the_engine_of_the_model(tmp_path: Path) -> None:
    hf = tiny_tokenizers.byte_level()
    hf.chat_template = {"default": "model", "short": "{{ messages | length }}"}
    assert Tokenizer(hf).render_chat([USER]) == "model"
    assert Tokenizer(hf).render_chat([USER], chat_template="short") == "1"
    tok = Tokenizer(hf, chat_template="{{ 'engine' }}")
    assert tok.render_chat([USER]) == "engine"
    (tmp_path / "call.jinja").write_text("call")
    assert tok.render_chat([USER], chat_template=tmp_path / "call.jinja") == "call"
    with pytest.raises(ConfigError, match=r"absent\.jinja"):
        tok.render_chat([USER], chat_template="absent.jinja")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "raised an error"),
        ("{{ missing.name }}", "'missing' is undefined"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
    ],
)
def test_errors_of_a_template(tok: Tokenizer, template: str, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        tok.render_chat([USER], chat_template=template)


@pytest.mark.parametrize("kind", tiny_tokenizers.KINDS)
@pytest.mark.parametrize("text", ["hi there", " the  sea\n\n", "日本 👋", "1 < 2", ""])
def test_ordinary_messages_give_the_ids_that_transformers_gives(kind: str, text: str) -> None:
    hf = tiny_tokenizers.KINDS[kind]()
    messages = [{"role": "system", "content": text}, USER, {"role": "user", "content": text}]
    expected = hf.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert Tokenizer(hf).encode_chat(messages, 1000)[1] == expected


def test_the_bundled_models_template_renders_as_with_transformers() -> None:
    tok = Tokenizer.load(bundled_model())
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "system", "content": "be kind"},
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "<b>2</b>"},
    ]
    options: dict[str, Any] = {"tools": [TOOL], "add_generation_prompt": True}
    text, ids = tok.encode_chat(messages, 1000, **options)
    assert text == tok.hf.apply_chat_template(messages, tokenize=False, **options)
    assert ids == tok.hf.apply_chat_template(messages, return_dict=False, **options)


def test_tools_may_be_functions(tok: Tokenizer) -> None:
    def add(a: int) -> int:
        """Add one.

        Args:
            a: a number.
        """
        return a + 1

    assert '"name": "add", "description": "Add one."' in tok.render_chat([USER], tools=[add])
    with pytest.raises(InvalidPromptError, match=r"tools\[0\] cannot be described"):
        tok.render_chat([USER], tools=[lambda a: a])


def test_a_template_without_a_place_for_tools_refuses_them(tok: Tokenizer) -> None:
    plain = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert tok.render_chat([USER], chat_template=plain) == "hi"
    for _ in range(2):
        with pytest.raises(InvalidPromptError, match="no place for tools") as refusal:
            tok.render_chat([USER], tools=[TOOL], chat_template=plain)
        assert refusal.value.param == "tools"
    assert tok.render_chat([USER], tools=[], chat_template=plain) == "hi"


def test_tools_are_looked_for_once_for_each_template() -> None:
    rendered: list[object] = []

    class Watched(TemplateSandbox):
        def run(self, template: Any, variables: Any, max_characters: int) -> str:
            rendered.append(variables["tools"])
            return super().run(template, variables, max_characters)

    chat = ChatTemplate(tiny_tokenizers.byte_level(), sandbox=Watched())
    for _ in range(3):
        chat.render([USER], tools=[TOOL])
    assert rendered == [[TOOL], None, [TOOL], [TOOL]]


def test_a_template_that_strips_is_continued_where_its_text_ends(tok: Tokenizer) -> None:
    template = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}"
    messages = [USER, {"role": "assistant", "content": "I am "}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert tok.render_chat(messages, chat_template=template, **options) == "[hi][I am"
    assert tok.render_chat(messages, **options).endswith("I am ")
    with pytest.raises(InvalidPromptError, match="cannot be continued"):
        tok.render_chat(messages, chat_template="{{ messages[0].content }}", **options)


def test_reasoning_is_known_by_each_of_its_names(tok: Tokenizer) -> None:
    template = "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}"
    for name in ("reasoning", "reasoning_content", "thinking"):
        message = {"role": "assistant", "content": "a", name: "because"}
        assert tok.render_chat([message], chat_template=template) == "because" * 2


def test_templates_see_plain_types_alone(tok: Tokenizer) -> None:
    class Kind(str, enum.Enum):
        USER = "user"

    assert "<|user|>hi" in tok.render_chat([{"role": Kind.USER, "content": "hi"}])
    with pytest.raises(InvalidPromptError, match="texts, numbers, lists and dicts; got PosixPath"):
        tok.render_chat([{**USER, "file": Path("x")}])


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ messages.append(1) }}",
    ],
)
def test_templates_run_in_a_sandbox(tok: Tokenizer, template: str) -> None:
    with pytest.raises(InvalidPromptError, match=r"unsafe|immutable"):
        tok.render_chat([USER], chat_template=template)


def test_template_kwargs(tok: Tokenizer) -> None:
    template = "{{ enable_thinking }}{{ documents[0].title }}"
    kwargs = {"enable_thinking": False, "documents": [{"title": "t"}]}
    assert tok.render_chat([USER], chat_template=template, template_kwargs=kwargs) == "Falset"


@pytest.mark.parametrize(
    "kwargs", [{"tokenize": True}, {"messages": []}, {"chat_template": "x"}, {"_x": 1}, [1],
               {str(i): i for i in range(40)}],
)  # fmt: skip
def test_template_kwargs_that_are_ours(tok: Tokenizer, kwargs: Any) -> None:
    with pytest.raises(InvalidPromptError, match="chat_template_kwargs"):
        tok.render_chat([USER], template_kwargs=kwargs)
