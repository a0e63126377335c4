"""A chat on its way in and out: the prompt and the grammar of its answer, and the answer read as a message.

What all faces share. It knows tools, thoughts and formats by `quire.formats`, and nothing of OpenAI's bodies.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quire.config import EngineConfig
from quire.engine.prompts import ParsedPrompt
from quire.engine.thought_tags import thought_tags
from quire.errors import InvalidParamsError, InvalidPromptError
from quire.formats.answer import AnswerFormat, AnswerParser
from quire.formats.deltas import Delta, joined
from quire.formats.grammar import AnswerGrammar
from quire.formats.lark import Lark
from quire.formats.reasoning import ReasoningFormat, find_reasoning
from quire.formats.tools import Tool, ToolFormat, find_tool_format
from quire.formats.tools.given import ToolChoice, read_tool_choice, read_tools
from quire.grammar.schema import check_schema
from quire.outputs import CompletionOutput, RequestOutput
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.structured_outputs import StructuredOutputsParams, Surroundings
from quire.thoughts import Thought, ThoughtTags, ThoughtTracker
from quire.tokenizer import Tokenizer
from quire.tokenizer.chat import tool_schemas

if TYPE_CHECKING:
    from quire.engine.engine import Engine


MOST_TAG_TOKENS = 32  # of the end of a prompt that says whether a thought is open


@dataclass(frozen=True)
class Chat:
    """A conversation that is ready to be submitted.

    Args:
        prompt: with the tools that the model is to know of.
        params: with the grammar that calls, thought and content need.
        how: the answer is to be read.
    """

    prompt: ParsedPrompt
    params: SamplingParams
    how: AnswerFormat

    def reader(self, kind: RequestOutputKind) -> Callable[[RequestOutput], None]:
        """Reads the outputs of one request of this chat; see `AnswerReader.read`."""
        return AnswerReader(
            self.how, self.prompt.thought, delta=kind is RequestOutputKind.DELTA
        ).read


class ChatFormats:
    """How a model writes calls and thoughts, and what of that is tokens.

    Args:
        config: whose `tool_call_parser` and `reasoning_parser` stand over what the template tells.
        tokenizer: the model's.
        constrains: answers can be held to a grammar.

    Raises:
        ConfigError: one of these is unknown.
    """

    def __init__(
        self, config: EngineConfig, tokenizer: Tokenizer | None, *, constrains: bool
    ) -> None:
        self._constrains = constrains
        self._config = config
        self._tokenizer = tokenizer
        self._thought_tags: dict[str, ThoughtTags] = {}  # by the format's name
        find_tool_format(None, config.tool_call_parser)
        find_reasoning(None, config.reasoning_parser)

    def tool_format(self, template: str | None) -> ToolFormat | None:
        """Of calls, by a chat template's text."""
        return find_tool_format(template, self._config.tool_call_parser)

    def reasoning(self, template: str | None) -> ReasoningFormat | None:
        """Of thoughts, by a chat template's text."""
        return find_reasoning(template, self._config.reasoning_parser)

    def thought(
        self, reasoning: ReasoningFormat | None, prompt: str, budget: int | None
    ) -> Thought | None:
        """The thought that the answer to a prompt may begin with, as its tokens tell it.

        Raises:
            InvalidParamsError: a budget where there are no thoughts.
        """
        if reasoning is None or self._tokenizer is None:
            if budget is not None:
                raise InvalidParamsError(
                    "thinking_token_budget is for models that think before they answer, and this one's "
                    "chat template has no tags for that: leave it out, or name the tags with the engine "
                    "option reasoning_parser",
                    param="thinking_token_budget",
                )
            return None
        if reasoning.name not in self._thought_tags:
            self._thought_tags[reasoning.name] = thought_tags(self._tokenizer, reasoning)
        tags = self._thought_tags[reasoning.name]
        return Thought(tags, reasoning.is_open(prompt), budget)

    def thought_after(self, token_ids: Sequence[int], budget: int) -> Thought | None:
        """The same for a prompt that no chat template has made; raises as `thought`."""
        template, prompt = None, ""
        if self._tokenizer is not None:
            with contextlib.suppress(InvalidPromptError):  # it has none
                template = self._tokenizer.template_text()
            prompt = self._tokenizer.decode(token_ids[-MOST_TAG_TOKENS:], skip_special_tokens=False)
        return self.thought(self.reasoning(template), prompt, budget)

    @cached_property
    def tokens(self) -> Mapping[str, int]:
        """Texts that grammars take for one token, by id: special ones, and tags that are tokens."""
        if self._tokenizer is None:
            return {}
        return {
            token.content: token_id
            for token_id, token in self._tokenizer.hf.added_tokens_decoder.items()
            if token.special or re.fullmatch(r"<.+>", token.content)
        }

    def hides(self, markers: Sequence[str]) -> bool:
        """Whether one of these texts is a special token, which is left out of texts by default."""
        special = self._tokenizer.special_ids if self._tokenizer is not None else ()
        return any(self.tokens.get(marker) in special for marker in markers)

    def prepare(
        self, prompt: ParsedPrompt, template: str, params: SamplingParams, choice: ToolChoice
    ) -> Chat:
        """The chat of a prompt that was made by a template.

        Args:
            params: the caller's.
            choice: of the tools that the prompt shows.

        Raises:
            InvalidParamsError: the structure that is asked for does not go with tools or thoughts.
        """
        reasoning = self.reasoning(template)
        tool_format = self.tool_format(template) if choice.tools else None
        if choice.tools and tool_format is None:
            raise InvalidParamsError(
                "it is not known how this model writes calls of tools: its chat template does not tell; "
                "name the format with the engine option tool_call_parser",
                param="tools",
            )
        text = prompt.text or ""
        markers = (*(tool_format.markers if tool_format else ()),
                   *((reasoning.start, reasoning.end) if reasoning else ()))  # fmt: skip
        if self.hides(markers) and "skip_special_tokens" not in params.fields_set():
            params = params.clone(skip_special_tokens=False)
        grammar = AnswerGrammar(
            self.tokens,
            tool_format,
            _enforceable(choice),
            required=choice.required,
            parallel=choice.most is None,
            reasoning=reasoning,
            prompt=text,
        )
        how = AnswerFormat(tool_format, choice.tools, reasoning, text, choice.most)
        thought = self.thought(reasoning, text, params.thinking_token_budget)
        prompt = replace(prompt, thought=thought)
        return Chat(prompt, _with_grammar(params, grammar, constrained=self._constrains), how)


def prepare_chat(
    engine: Engine,
    messages: list[dict[str, Any]],
    params: SamplingParams | None = None,
    *,
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    parallel_tool_calls: bool = True,
    **template: Any,
) -> Chat:
    """A conversation with its tools, ready for `Engine.resolve` and `Engine.submit`.

    Args:
        tools: in OpenAI's shape, or functions.
        tool_choice: "auto" (the default), "none", "required", or a tool by its name as OpenAI has it.
        parallel_tool_calls: whether there may be several calls in one answer.
        template: as in `Engine.parse_chat`.

    Raises:
        InvalidParamsError: tools, choice or structure are wrong, or cannot be enforced.
        InvalidPromptError, PromptTooLongError: as `Engine.parse_chat`.
    """
    functions = tool_schemas(tools)
    choice = read_tool_choice(tool_choice, read_tools(functions), parallel=parallel_tool_calls)
    shown = functions if choice.tools else None
    prompt = engine.parse_chat(messages, tools=shown, **template)
    assert engine.tokenizer is not None, "it rendered the conversation"
    text = engine.tokenizer.template_text(template.get("chat_template"), shown)
    return engine.chat_formats.prepare(prompt, text, params or SamplingParams(), choice)


def _enforceable(choice: ToolChoice) -> tuple[Tool, ...]:
    """The tools as grammars take them.

    Where a call is the model's own choice, a schema that cannot be enforced is let go for any object, unless
    the tool is strict: agents bring schemas of all kinds, and most of what is in them is no help to a model.

    Raises:
        InvalidParamsError: a schema that must be enforced cannot be.
    """
    tools = []
    for number, tool in enumerate(choice.tools):
        try:
            check_schema(tool.parameters, f"tools[{number}].function.parameters")
        except InvalidParamsError:
            if choice.required or tool.strict:
                raise
            tool = Tool(tool.name, {"type": "object"})
        tools.append(tool)
    return tuple(tools)


def _with_grammar(
    params: SamplingParams, grammar: AnswerGrammar, *, constrained: bool
) -> SamplingParams:
    """The parameters with the grammar of the whole answer in place of the content's alone."""
    asked = params.structured_outputs
    thinks = grammar.reasoning is not None and not grammar.reasoning.is_closed(grammar.prompt)
    if grammar.tool_format is None and not (asked is not None and thinks):
        return params
    if asked is None and not grammar.required and (params.ignore_eos or not constrained):
        return params  # calls are made as the model makes them
    content = None if asked is None or grammar.required else _content(asked)
    whole = StructuredOutputsParams(grammar=grammar.render(content))
    if asked is not None and asked.watches_fields:
        if grammar.tool_format is not None:
            raise InvalidParamsError(
                "confidence and validators do not go with tools that may be called: leave tools out",
                param="structured_outputs",
            )
        tags = grammar.reasoning
        assert tags is not None, "there is a thought, or the content alone is the answer"
        whole.surroundings = Surroundings(asked, tags.start, tags.end, tags.is_open(grammar.prompt))
    return params.clone(structured_outputs=whole)


def _content(asked: StructuredOutputsParams) -> str:
    """An expression for what the content alone is to be."""
    if asked.kind == "json_object":
        return Lark.json({"type": "object"})
    if asked.kind == "json":
        return Lark.json(asked.json)
    if asked.kind == "regex":
        return "/" + re.sub(r"(?<!\\)/", r"\/", asked.regex or "") + "/"
    if asked.kind == "choice":
        return Lark.either([Lark({}).literal(text) for text in asked.choice or ()])
    raise InvalidParamsError(
        f"structured_outputs.{asked.kind} does not go with tools that may be called, nor with a model "
        "that thinks before it answers: leave tools out, and turn thinking off "
        "(chat_template_kwargs), or ask for json, regex or choice",
        param=f"structured_outputs.{asked.kind}",
    )


class AnswerReader:
    """Puts messages on the outputs of one request, each read from the text that is new."""

    def __init__(self, how: AnswerFormat, thought: Thought | None, *, delta: bool) -> None:
        self._how = how
        self._thought = thought
        self._delta = delta
        self._sequences: dict[int, _Sequence] = {}

    def read(self, output: RequestOutput) -> None:
        """Set `message` of each of the sequences."""
        for one in output.outputs:
            if one.index not in self._sequences:
                tracker = None if self._thought is None else ThoughtTracker(self._thought)
                self._sequences[one.index] = _Sequence(AnswerParser(self._how), tracker)
            self._sequences[one.index].read(one, delta=self._delta)


@dataclass
class _Sequence:
    """What was read of one sequence."""

    parser: AnswerParser
    tracker: ThoughtTracker | None
    length: int = 0
    num_tokens: int = 0
    ended: bool = False
    deltas: list[Delta] = field(default_factory=list)

    def read(self, one: CompletionOutput, *, delta: bool) -> None:
        text = one.text if delta else one.text[self.length :]
        self.length += len(text)
        new = self.parser.feed(text)
        if one.finish_reason is not None and not self.ended:
            self.ended = True
            new += self.parser.finish()
        if not delta:
            new = self.deltas = joined([*self.deltas, *new])
        one.message = self.parser.message(new)
        if self.tracker is not None:
            before = self.tracker.num_tokens if delta else 0
            self._count(one, self.tracker, one.token_ids[0 if delta else self.num_tokens :])
            one.message.num_reasoning_tokens = self.tracker.num_tokens - before

    def _count(
        self, one: CompletionOutput, tracker: ThoughtTracker, token_ids: Sequence[int]
    ) -> None:
        self.num_tokens += len(token_ids)
        if one.finish_reason == "stop" and one.stop_reason is None:
            token_ids = token_ids[:-1]  # the end of the sequence
        for token_id in token_ids:
            tracker.take(token_id)
        if one.finish_reason is not None:
            tracker.finish()
