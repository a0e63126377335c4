"""The grammar of an answer: a thought if the model has them, then content, or calls.

required:  thought? opening calls
auto:      thought? (text without an opening | text opening calls)
content:   thought? content        (what `structured_outputs` asks for, with or without tools)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quire.formats.lark import ANY, Lark
from quire.formats.reasoning import ReasoningFormat
from quire.formats.tools import Tool, ToolFormat


@dataclass(frozen=True)
class AnswerGrammar:
    """What an answer may be.

    Args:
        tokens: texts that are tokens of their own in the model's vocabulary, by id.
        tool_format, tools: of the calls; None and none where there can be none.
        required: there must be a call.
        parallel: there may be several.
        reasoning: tags of the thought.
        prompt: whose end says whether a thought is open.
    """

    tokens: Mapping[str, int]
    tool_format: ToolFormat | None = None
    tools: Sequence[Tool] = ()
    required: bool = False
    parallel: bool = True
    reasoning: ReasoningFormat | None = None
    prompt: str = ""

    def render(self, content: str | None = None) -> str:
        """The grammar in Lark.

        Args:
            content: an expression for the content; None: any text.
        """
        lark = Lark(self.tokens)
        thought = self._thought(lark)
        lark.rule("start", f"{thought} answer".strip())
        lark.rule("answer", self._answer(lark, content))
        return lark.render()

    def _thought(self, lark: Lark) -> str:
        tags = self.reasoning
        if tags is None or tags.is_closed(self.prompt):
            return ""
        if lark.is_token(tags.end):
            body = lark.rule("thought", f"/{ANY}/")
            thought = f"{body} {lark.literal(tags.end)}"
        else:
            thought = lark.rule("thought[lazy]", f"/{ANY}/ {lark.literal(tags.end)}")
        lark.rule("GAP", r"/[ \t\r\n]{0,4}/")
        if tags.is_open(self.prompt):
            return f"{thought} GAP"
        return f"(GAP {lark.literal(tags.start)} {thought} GAP)?"

    def _answer(self, lark: Lark, content: str | None) -> str:
        how = self.tool_format
        if how is None:
            return content or f"/{ANY}/"
        calls = lark.rule("calls", how.calls(lark, self.tools, parallel=self.parallel))
        opening = lark.literal(how.opening) if how.opening else ""
        if self.required:
            return f"{opening} {calls}"
        if content is not None:
            return f"{content} | {opening} {calls}"
        marks = [mark for mark in (how.opening,) if mark]
        patterns = [how.bare] if how.bare else []
        if self.reasoning and not lark.is_token(self.reasoning.start):
            patterns.append(rf"\s*{re.escape(self.reasoning.start)}{ANY}".replace("/", r"\/"))
        text = lark.text_without("TEXT", marks, patterns)
        if not how.opening:
            return f"{text} | {calls}"
        if any(how.opening.startswith(token) for token in self.tokens):
            return f"{text} | {text} {opening} {calls}"
        opened = lark.rule("opened[lazy]", f"/{ANY}/ {opening}")
        return f"{text} | {opened} {calls}"
