"""From a scripted answer to the tokens that a model would have written.

It knows tokenizer, chat template, formats of calls and thoughts, and grammars, and no script: which answer a
request gets is decided before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.engine.engine import Engine
from quire.engine.prompts import ParsedPrompt
from quire.errors import InvalidParamsError, RequestFailedError, ScriptError
from quire.grammar import CompiledGrammar
from quire.sampling_params import SamplingParams
from quire.testing.executor import Written, WrittenStep
from quire.testing.script import Answer, Call, Token, shorten
from quire.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat's prompt was made of.

    Args:
        messages: as they were given.
        options: of `Engine.parse_chat`.
    """

    messages: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """That the prompt shows."""
        return self.options.get("tools") or ()


@dataclass(frozen=True, slots=True)
class ChatPrompt(ParsedPrompt):
    """A prompt that remembers its conversation."""

    conversation: Conversation | None = None


class AnswerWriter:
    """Writes answers down for one engine.

    Args:
        engine: whose tokenizer, template, formats and grammars are used.
        tokenizer: the engine's.
        end_token_id: that ends an answer.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, end_token_id: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._end = end_token_id

    def write(self, answer: Answer, prompt: ParsedPrompt, params: SamplingParams) -> Written:
        """The tokens of an answer.

        Args:
            prompt: that it answers.
            params: of the request; a structure that is asked for must be followed.

        Raises:
            ScriptError: a thought or call has no place in this request, or the structure is not followed.
        """
        chat = prompt.conversation if isinstance(prompt, ChatPrompt) else None
        pieces: list[tuple[str, Token | None]] = []
        if answer.reasoning is not None:
            pieces.append((self._thought(answer.reasoning, prompt, chat), None))
        pieces += [(p.text, None if isinstance(answer.content, str) else p) for p in answer.pieces]
        if answer.calls:
            pieces.append((self._calls(answer, prompt, chat), None))
        steps: list[WrittenStep] = []
        for text, token in pieces:
            steps += self._steps(text, token, answer.token_delay)
        if steps:
            first = steps[0]
            delay = first.delay - answer.token_delay + answer.delay
            steps[0] = WrittenStep(first.token_ids, first.logprobs, delay)
        error = answer.error
        written = Written(
            steps,
            error=None if error is None else error.message,
            aborts=answer.finish_reason == "abort",
        )
        ends = error is None and answer.finish_reason == "stop"
        self.check(written.token_ids, params, f"the scripted answer {answer}", ends=ends)
        return written

    def check(
        self, token_ids: Sequence[int], params: SamplingParams, what: str, ends: bool
    ) -> None:
        """Check that tokens follow the structure that a request asks for.

        Args:
            what: the tokens are, for the message.
            ends: the answer is whole.

        Raises:
            ScriptError: saying where they do not.
        """
        if params.structured_outputs is None:
            return
        try:
            grammar = self._engine.grammars.compile(params.structured_outputs).result()
        except InvalidParamsError:
            return  # which the engine says better
        matcher = grammar.matcher()
        if params.max_tokens is not None and params.max_tokens <= len(token_ids):
            token_ids, ends = token_ids[: params.max_tokens], False
        for position, token_id in enumerate(token_ids):
            if not matcher.accept(token_id):
                before = self._longest_start(grammar, token_ids, position)
                after = self._text(token_ids)[len(before) :]
                raise ScriptError(
                    f"{what} does not follow the structure that the request asks for: at character "
                    f"{len(before)}, after {shorten(before, from_end=True)!r}, it may not go on with "
                    f"{shorten(after)!r}"
                )
        if ends and not matcher.is_complete:
            raise ScriptError(
                f"{what} does not follow the structure that the request asks for: it may not end after "
                f"{shorten(self._text(token_ids), from_end=True)!r}"
            )

    def _longest_start(
        self, grammar: CompiledGrammar, token_ids: Sequence[int], position: int
    ) -> str:
        """How far a text follows a grammar that does not allow its token at `position`, to the character."""
        matcher = grammar.matcher()
        for token_id in token_ids[:position]:
            matcher.accept(token_id)
        text = self._text(token_ids[:position])
        for character in self._text(token_ids[position:]):
            ids = self._tokenizer.encode(character, add_special_tokens=False)
            if not all(matcher.accept(token_id) for token_id in ids):
                break
            text += character
        return text

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)

    def _steps(self, text: str, token: Token | None, delay: float) -> list[WrittenStep]:
        """A piece in one step, or a text in one for each of its tokens."""
        token_ids = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        if token is None:
            return [WrittenStep((one,), ((0.0, {}),), delay) for one in token_ids]
        if not token_ids:
            return []
        others = {self._first_id(other): value for other, value in token.top.items()}
        logprobs = ((token.logprob, others), *[(0.0, {})] * (len(token_ids) - 1))
        return [WrittenStep(token_ids, logprobs, delay + token.delay)]

    def _first_id(self, text: str) -> int:
        token_ids = self._tokenizer.encode(text, add_special_tokens=False)
        if not token_ids:
            raise ScriptError(f"no token has the text {text!r}")
        return token_ids[0]

    def _thought(self, thought: str, prompt: ParsedPrompt, chat: Conversation | None) -> str:
        """A thought between its tags, as far as the prompt has not opened it."""
        tags = None if chat is None else self._engine.chat_formats.reasoning(self._template(chat))
        if tags is None:
            raise ScriptError(
                "the script has a thought, but "
                + (
                    "the request is no chat"
                    if chat is None
                    else "the chat template has no place for it; "
                )
                + (
                    ""
                    if chat is None
                    else 'name its tags: ScriptedEngine(reasoning_parser="think")'
                )
            )
        text = prompt.text or ""
        if tags.is_closed(text):
            raise ScriptError("the script has a thought, but the request turns thinking off")
        start = "" if tags.is_open(text) else tags.start + "\n"
        return f"{start}{thought}\n{tags.end}\n\n"

    def _calls(self, answer: Answer, prompt: ParsedPrompt, chat: Conversation | None) -> str:
        """Calls as the chat template writes them, with the space between content and calls."""
        offered = [tool["function"]["name"] for tool in chat.tools] if chat is not None else []
        for call in answer.calls:
            if call.name not in offered:
                raise ScriptError(
                    f"the script calls {call.name!r}, but the request offers "
                    + (f"only {', '.join(offered)}" if offered else "no tools")
                )
        assert chat is not None, "it offers tools"
        template = self._template(chat)
        tool_format = self._engine.chat_formats.tool_format(template)
        if tool_format is None:
            raise ScriptError(
                "the script has calls, but the chat template has no place for them; name their format: "
                'ScriptedEngine(tool_call_parser="hermes"), with a template that has it'
            )
        if answer.text and not tool_format.opening:
            raise ScriptError(
                f"in the format {tool_format.name!r} a call is all of an answer: leave its content out"
            )
        text = tool_format.write([_plain_call(call, chat) for call in answer.calls])
        return ("\n" if answer.text else "") + text

    def _template(self, chat: Conversation) -> str:
        return self._tokenizer.template_text(
            chat.options.get("chat_template"), chat.options.get("tools")
        )


def failure(answers: Sequence[Answer]) -> Exception | None:
    """What a stream of these answers raises in place of an output that ends with "error".

    None: the engine says it itself.
    """
    errors = (answer.error for answer in answers)
    return next((e for e in errors if e is not None and type(e) is not RequestFailedError), None)


def _plain_call(call: Call, chat: Conversation) -> tuple[str, Mapping[str, Any]]:
    """A call's name and its arguments, in the order of the tool's schema: grammars know no other."""
    arguments = call.arguments
    try:
        given = dict(json.loads(arguments) if isinstance(arguments, str) else arguments)
        order = list(_parameters(call.name, chat).get("properties", {}))
        known = {name: given[name] for name in order if name in given}
    except (ValueError, TypeError, LookupError) as error:
        raise ScriptError(
            f"the arguments of the scripted call of {call.name!r} are no JSON object: {arguments!r:.100}"
        ) from error
    return call.name, known | given


def _parameters(name: str, chat: Conversation) -> Mapping[str, Any]:
    functions = [tool["function"] for tool in chat.tools]
    return next((one.get("parameters") or {} for one in functions if one["name"] == name), {})
