"""Conversations to prompt text: messages in OpenAI's shape through a model's chat template.

Templates are code from a model's repository: they run in the sandbox of transformers'
`apply_chat_template` and see copies in plain types. This module makes text; ids are `tokenizer`'s.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from quire.errors import ConfigError, InvalidPromptError

MAX_TEMPLATE_KWARGS = 32


class ChatTemplate:
    """A tokenizer's chat template, or the one given in its place.

    Args:
        hf: the Hugging Face tokenizer; its `chat_template` is looked at when a chat is rendered.
        chat_template: Jinja text, or a file of it.

    Raises:
        ConfigError: `chat_template` names a file that does not exist.
    """

    def __init__(self, hf: Any, chat_template: str | Path | None = None) -> None:
        self._hf = hf
        self._given = self._resolve(chat_template)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        chat_template: str | Path | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text of a conversation.

        A special token's name in a message's text is that token once the prompt is encoded, as with
        transformers' `apply_chat_template`.

        Args:
            messages: dicts with `role` and `content` (text, or a list of text parts, which are joined by
                line breaks); not changed. `arguments` of tool calls may be JSON text or an object.
            tools: tool descriptions in OpenAI's shape, or functions with type hints and docstrings.
            chat_template: in place of the model's, for this call: Jinja text, a file of it, or the name of
                one of the model's templates.
            add_generation_prompt: end with what opens the assistant's turn.
            continue_final_message: leave the last message open, to be continued.
            template_kwargs: further variables for the template.

        Raises:
            InvalidPromptError: messages of a wrong shape, no template, or one that raised; the message
                says which.
            ConfigError: `chat_template` names a file that does not exist.
        """
        if add_generation_prompt and continue_final_message:
            raise InvalidPromptError(
                "add_generation_prompt and continue_final_message exclude each other: set "
                "add_generation_prompt=False to continue the last message",
                param="continue_final_message",
            )
        conversation = [_plain_message(i, message) for i, message in enumerate(_checked(messages))]
        template = self._resolve(chat_template) or self._given
        if template is None and not self._hf.chat_template:
            raise InvalidPromptError(
                "the model has no chat template: pass chat_template=... (Jinja text or a file), or "
                "write the prompt yourself and call generate",
                param="chat_template",
            )
        try:
            text = self._hf.apply_chat_template(
                conversation,
                tools=_checked_tools(tools),
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **self._checked_kwargs(template_kwargs),
            )
        except InvalidPromptError:
            raise
        except TemplateError as error:
            raise InvalidPromptError(
                f"the chat template raised an error: {error}", param="messages"
            ) from error
        except Exception as error:  # a template computes, and can fail in any way Python can
            raise InvalidPromptError(
                f"the chat template failed: {type(error).__name__}: {error}", param="messages"
            ) from error
        return str(text)

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


def _checked_tools(tools: Any) -> list[Any] | None:
    if not tools:
        return None
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidPromptError("tools must be a list of tool descriptions", param="tools")
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping) and not callable(tool):
            raise InvalidPromptError(
                f"tools[{index}] must be a dict in OpenAI's shape, got {type(tool).__name__}",
                param=f"tools[{index}]",
            )
    return [dict(tool) if isinstance(tool, Mapping) else tool for tool in tools]


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
    plain = dict(message)
    plain["content"] = _plain_content(where, message)
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
