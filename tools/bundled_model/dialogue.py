"""What a training example is, and how it becomes text in the ChatML format with Hermes tools.

`segments` must agree with `chat_template.jinja` to the letter; a test holds the two together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

START, END, EOT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL = [EOT, START, END]
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]

TOOLS_HEAD = "# Tools\n\nYou may call functions to help with the user query.\n\n<tools>"
TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a JSON object within tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)

TEMPLATE = """{%- macro plain(content) %}
    {%- if content is string %}{{- content }}
    {%- elif content %}{%- for part in content %}{{- part.text }}{%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- set first = messages[0] if messages else none %}
{%- set system = plain(first.content) if first and first.role == 'system' else '' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if system %}{{- system + '\\n\\n' }}{%- endif %}
    {{- HEAD }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- TAIL }}
    {{- '<|im_end|>\\n' }}
{%- elif system %}
    {{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- if not loop.first %}
            {{- '<|im_start|>system\\n' + plain(message.content) + '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- plain(message.content) }}{{- '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.role == 'assistant' and message.tool_calls %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.content %}{{- plain(message.content) + '\\n' }}{%- endif %}
        {%- for item in message.tool_calls %}
            {%- set call = item.function if item.function is defined else item %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}
            {%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
            {%- if not loop.last %}{{- '\\n' }}{%- endif %}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + plain(message.content) + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
""".replace("HEAD", repr(TOOLS_HEAD)).replace("TAIL", repr(TOOLS_TAIL))

Message = dict[str, Any]
Segment = tuple[str, float]


@dataclass
class Example:
    """A dialogue, or plain text given directly as weighted segments."""

    task: str
    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    text: list[Segment] = field(default_factory=list)

    def user(self, content: str) -> None:
        """Add a user turn."""
        self.messages.append({"role": "user", "content": content})

    def answer(self, content: str) -> None:
        """Add an assistant turn in words."""
        self.messages.append({"role": "assistant", "content": content})


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A tool call as the model writes it."""
    body = json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {body}}}\n</tool_call>'


def reply_text(message: Message) -> str:
    """What the assistant wrote in a turn: words or tool calls."""
    if not message.get("tool_calls"):
        return str(message["content"])
    calls = [c["function"] for c in message["tool_calls"]]
    return "\n".join(call_text(c["name"], c["arguments"]) for c in calls)


def _system(example: Example) -> list[Segment]:
    first = example.messages[0]
    words = first["content"] if first["role"] == "system" else ""
    if example.tools:
        lines = "".join("\n" + json.dumps(t, ensure_ascii=False) for t in example.tools)
        head = words + "\n\n" if words else ""
        words = head + TOOLS_HEAD + lines + TOOLS_TAIL
    return [(f"{START}system\n{words}{END}\n", 0.0)] if words else []


def segments(example: Example) -> list[Segment]:
    """The example as pieces of text with the weight of each piece in the loss."""
    if example.text:
        return example.text
    out = _system(example)
    turns = [m for m in example.messages if m["role"] != "system"]
    for i, message in enumerate(turns):
        role = message["role"]
        if role == "assistant":
            out.append((f"{START}assistant\n", 0.0))
            out.append((reply_text(message) + END, 1.0))
            out.append(("\n", 0.0))
        elif role == "tool":
            before = i > 0 and turns[i - 1]["role"] == "tool"
            after = i + 1 < len(turns) and turns[i + 1]["role"] == "tool"
            body = f"\n<tool_response>\n{message['content']}\n</tool_response>"
            out.append((("" if before else f"{START}user") + body, 0.0))
            out.append(("" if after else f"{END}\n", 0.0))
        else:
            out.append((f"{START}user\n{message['content']}{END}\n", 0.0))
    return out
