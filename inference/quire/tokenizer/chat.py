"""Conversations to prompt text: messages in OpenAI's shape through a model's chat template.

Templates see copies in plain types, and run in `sandbox`. This module makes text; ids are `tokenizer`'s.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError

from quire.errors import ConfigError, InvalidPromptError, RequestError
from quire.tokenizer.markers import find_markers, guarded, has_markers, unused_character
from quire.tokenizer.sandbox import TemplateSandbox

MAX_TEMPLATE_KWARGS = 32
MAX_CHARACTERS = 1 << 26  # that a template may write where no context sets the bound
REASONING = (
    "reasoning_content",
    "thinking",
    "reasoning",
)  # names of one thing; the first is standard


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as prompt text, special tokens written out.

    Args:
        guarded_text: the text, with `guard` within each marker that stood in a message.
        guard: a character that occurs nowhere else; empty if no message holds a marker.
    """

    guarded_text: str
    guard: str = ""

    @property
    def text(self) -> str:
        """What the template wrote of what was said, without guards."""
        return self.guarded_text.replace(self.guard, "") if self.guard else self.guarded_text


@dataclass(slots=True)
class _Compiled:
    """A template ready to run, and what is known of it."""

    template: Template
    markers: re.Pattern[str] | None
    shows_tools: bool = False  # it has once: then it is believed


class ChatTemplate:
    """A tokenizer's chat template, or the one given in its place.

    Args:
        hf: the Hugging Face tokenizer; its `chat_template` is looked at when a chat is rendered.
        chat_template: Jinja text, or a file of it.
        sandbox: where templates run.

    Raises:
        ConfigError: `chat_template` names a file that does not exist.
    """

    def __init__(
        self,
        hf: Any,
        chat_template: str | Path | None = None,
        sandbox: TemplateSandbox | None = None,
    ) -> None:
        self._hf = hf
        self._given = self._resolve(chat_template)
        self._sandbox = sandbox or TemplateSandbox()
        self._compiled = functools.lru_cache(maxsize=16)(self._compile)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        chat_template: str | Path | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        max_characters: int = MAX_CHARACTERS,
    ) -> RenderedChat:
        """The prompt text of a conversation.

        A marker (`quire.tokenizer.markers`) in a message, tool or variable is guarded: it stays text.

        Args:
            messages: dicts with `role` and `content` (text, or a list of text parts, which are joined by
                line breaks); not changed. `arguments` of tool calls may be JSON text or an object.
            tools: tool descriptions in OpenAI's shape, or functions with type hints and docstrings.
            chat_template: in place of the model's, for this call: Jinja text, a file of it, or the name of
                one of the model's templates.
            add_generation_prompt: end with what opens the assistant's turn.
            continue_final_message: leave the last message open, to be continued.
            template_kwargs: further variables for the template.
            max_characters: that the template may write.

        Raises:
            InvalidPromptError: messages of a wrong shape, no template, one that raised, takes too long or
                has no place for tools; the message says which.
            PromptTooLongError: it writes more than `max_characters`.
            ConfigError: `chat_template` names a file that does not exist.
        """
        if add_generation_prompt and continue_final_message:
            raise InvalidPromptError(
                "add_generation_prompt and continue_final_message exclude each other: set "
                "add_generation_prompt=False to continue the last message",
                param="continue_final_message",
            )
        conversation = [_plain_message(i, message) for i, message in enumerate(_checked(messages))]
        schemas = tool_schemas(tools)
        given = self._checked_kwargs(template_kwargs)
        template = self.choose(chat_template, schemas)
        try:
            compiled = self._compiled(template)
        except TemplateError as error:
            raise _raised(error) from error
        said = {
            **_plain("chat_template_kwargs", given),
            "messages": _plain("messages", conversation),
            "tools": _plain("tools", schemas),
        }
        guard = ""
        if compiled.markers and has_markers(said, compiled.markers):
            guard = unused_character(said)
            said = guarded(said, compiled.markers, guard)
        variables = {
            "documents": None,
            **self._hf.special_tokens_map,
            **said,
            "add_generation_prompt": add_generation_prompt,
        }
        write = functools.partial(self._write, compiled.template, max_characters=max_characters)
        text = write(variables, to_be_continued=continue_final_message)
        if schemas and not compiled.shows_tools:
            without = write({**variables, "tools": None}, to_be_continued=continue_final_message)
            if without == text:
                raise InvalidPromptError(
                    "the chat template has no place for tools, so the model would not know of them: "
                    "leave tools out, or use a model or a chat template that takes them",
                    param="tools",
                )
            compiled.shows_tools = True
        return RenderedChat(text, guard)

    def _write(
        self,
        template: Template,
        variables: dict[str, Any],
        *,
        max_characters: int,
        to_be_continued: bool,
    ) -> str:
        end = ""
        if to_be_continued:
            end = unused_character(variables)
            *earlier, last = variables["messages"]
            # The space shows whether the template strips texts, and so what would follow the last one.
            last = {**last, "content": f"{last['content']}{end} "}
            variables = {**variables, "messages": [*earlier, last]}
        try:
            text = self._sandbox.run(template, variables, max_characters)
        except RequestError:  # of the sandbox
            raise
        except TemplateError as error:
            raise _raised(error) from error
        except Exception as error:  # a template computes, and can fail in any way Python can
            raise InvalidPromptError(
                f"the chat template failed: {type(error).__name__}: {error}", param="messages"
            ) from error
        if not to_be_continued:
            return text
        before, found, after = text.rpartition(end)
        if not found:
            raise InvalidPromptError(
                "the last message cannot be continued: the chat template does not show its text",
                param="continue_final_message",
            )
        return before if after.startswith(" ") else before.rstrip()

    def choose(self, chat_template: str | Path | None, tools: list[Any] | None) -> str:
        """The template's text: the call's, the engine's or the model's own."""
        template = self._resolve(chat_template) or self._given
        if template is not None:
            return template
        if not self._hf.chat_template:
            raise InvalidPromptError(
                "the model has no chat template: pass chat_template=... (Jinja text or a file), or "
                "write the prompt yourself and call generate",
                param="chat_template",
            )
        try:
            return str(self._hf.get_chat_template(None, tools))
        except ValueError as error:  # several templates and no default
            raise InvalidPromptError(str(error), param="chat_template") from error

    def _compile(self, text: str) -> _Compiled:
        added = self._hf.added_tokens_decoder.values()
        special = {*map(str, self._hf.all_special_tokens)}
        special |= {token.content for token in added if token.special}
        other = {token.content for token in added} - special
        markers = find_markers(special, other, self._sandbox.parse(text))
        return _Compiled(self._sandbox.from_string(text), markers)

    def _resolve(self, template: str | Path | None) -> str | None:
        """Template text of what may be text, the name of one of the model's templates, or a file."""
        if template is None:
            return None
        if isinstance(template, str):
            if "{" in template or "\n" in template:
                return template
            named = self._hf.chat_template
            if isinstance(named, Mapping) and template in named:
                return str(named[template])
        try:
            return Path(template).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"chat_template {str(template)!r} is neither Jinja text nor a readable file: {error}",
                param="chat_template",
            ) from None

    def _checked_kwargs(self, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        if kwargs is None:
            return {}
        if not isinstance(kwargs, Mapping) or len(kwargs) > MAX_TEMPLATE_KWARGS:
            raise InvalidPromptError(
                f"chat_template_kwargs must be a mapping of at most {MAX_TEMPLATE_KWARGS} names",
                param="chat_template_kwargs",
            )
        ours = {*inspect.signature(self._hf.apply_chat_template).parameters, "messages"}
        for name in kwargs:
            if not isinstance(name, str) or name.startswith("_") or name in ours - {"documents"}:
                raise InvalidPromptError(
                    f"chat_template_kwargs may not set {name!r}", param="chat_template_kwargs"
                )
        return dict(kwargs)


def _checked(messages: Any) -> Sequence[Any]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidPromptError(
            "messages must be a list of dicts with role and content, got "
            f"{type(messages).__name__}",
            param="messages",
        )
    if not messages:
        raise InvalidPromptError("messages is empty: pass at least one message", param="messages")
    return messages


def tool_schemas(tools: Any) -> list[Any] | None:
    """Tool descriptions in OpenAI's shape; functions are described by their hints and docstrings.

    Raises:
        InvalidPromptError: naming the one that is neither.
    """
    if not tools:
        return None
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidPromptError("tools must be a list of tool descriptions", param="tools")
    schemas: list[Any] = []
    for index, tool in enumerate(tools):
        if isinstance(tool, Mapping):
            schemas.append(tool)
        elif inspect.isfunction(tool) or inspect.ismethod(tool):
            from transformers.utils.chat_template_utils import get_json_schema

            try:
                schemas.append(get_json_schema(tool))
            except Exception as error:  # no docstring, no type hints, or some it cannot read
                raise InvalidPromptError(
                    f"tools[{index}] cannot be described: {error}", param=f"tools[{index}]"
                ) from error
        else:
            raise InvalidPromptError(
                f"tools[{index}] must be a dict in OpenAI's shape, got {type(tool).__name__}",
                param=f"tools[{index}]",
            )
    return schemas


def _plain(where: str, value: Any) -> Any:
    """A copy in types that have no methods of their own to offer to a template."""
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, str):  # an enumeration's member, or numpy's; so are the next two
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(where, key): _plain(where, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(where, item) for item in value]
    raise InvalidPromptError(
        f"{where} may hold texts, numbers, lists and dicts; got {type(value).__name__}", param=where
    )


def _raised(error: TemplateError) -> InvalidPromptError:
    return InvalidPromptError(f"the chat template raised an error: {error}", param="messages")


def _plain_message(index: int, message: Any) -> dict[str, Any]:
    """A copy of a message with its content as one text and tool arguments as objects."""
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise InvalidPromptError(
            f"{where} must be a dict with role and content, got {type(message).__name__}",
            param=where,
        )
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise InvalidPromptError(f"{where} needs a role, such as 'user'", param=f"{where}.role")
    plain = {name: value for name, value in message.items() if value is not None}
    plain["content"] = _plain_content(where, message)
    reasoning = next((plain[name] for name in REASONING if name in plain), None)
    if reasoning is not None:  # templates read it under the first name, some under the second
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    if message.get("tool_calls"):
        plain["tool_calls"] = _plain_tool_calls(f"{where}.tool_calls", message["tool_calls"])
    return plain


def _plain_content(where: str, message: Mapping[str, Any]) -> str:
    content = message.get("content")
    where = f"{where}.content"
    if isinstance(content, str):
        return content
    if content is None and (message["role"] == "assistant" or message.get("tool_calls")):
        return ""  # a turn of tool calls alone; templates add to the content, so it must be text
    if not isinstance(content, (list, tuple)):
        raise InvalidPromptError(
            f"{where} must be text or a list of parts, got {type(content).__name__}", param=where
        )
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InvalidPromptError(
                f"{where}[{number}] is of type {kind!r}: this release takes text only, as "
                '{"type": "text", "text": "..."}',
                param=f"{where}[{number}]",
            )
        texts.append(part["text"])
    return "\n".join(texts)


def _plain_tool_calls(where: str, calls: Any) -> list[Any]:
    """Copies of tool calls whose arguments are objects: templates write them as JSON themselves."""
    if not isinstance(calls, (list, tuple)) or not all(isinstance(c, Mapping) for c in calls):
        raise InvalidPromptError(f"{where} must be a list of dicts", param=where)
    plain = []
    for number, call in enumerate(calls):
        function = call.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
            try:
                arguments = json.loads(function["arguments"] or "{}")
            except (ValueError, RecursionError) as error:
                name = f"{where}[{number}].function.arguments"
                raise InvalidPromptError(f"{name} is no JSON: {error}", param=name) from None
            call = {**call, "function": {**function, "arguments": arguments}}
        plain.append(dict(call))
    return plain
