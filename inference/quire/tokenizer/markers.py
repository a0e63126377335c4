"""A model's markers in what callers write: there they are text, and only a template may set them.

A marker is a token with a text of its own, such as `<|im_end|>`. Where one stands in a message, a guard
(a character that occurs nowhere else) is put into it, so that the tokenizer does not see it; `Tokenizer`
leaves the guard out of the tokens that it makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import nodes

from quire.errors import InvalidPromptError

GUARDS = range(0xE000, 0xF900)  # Unicode's private use: no text means anything by them


def find_markers(
    special: Iterable[str], other: Iterable[str], template: nodes.Template
) -> re.Pattern[str] | None:
    """What matches a marker; None if the model has none.

    Special tokens are markers. Of the other added tokens, which may be runs of spaces or tags of HTML, those
    are that the template writes, unless it also looks for them in messages: then it means them to be there.
    """
    constants = [one for one in template.find_all(nodes.Const) if isinstance(one.value, str)]
    written = [one.data for one in template.find_all(nodes.TemplateData)]
    written += [one.value for one in constants]
    looked_for = {
        one.value
        for place in template.find_all((nodes.Compare, nodes.Call, nodes.Filter, nodes.Test))
        if not _is_output(place)
        for one in _operands(place)
        if isinstance(one, nodes.Const) and isinstance(one.value, str)
    }
    markers = {text for text in special if len(text) > 1}
    markers |= {
        text
        for text in other
        if len(text) > 1
        and not text.isspace()
        and any(text in piece for piece in written)
        and not any(text in piece for piece in looked_for)
    }
    if not markers:
        return None
    return re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))


def _operands(place: nodes.Node) -> Iterator[nodes.Node]:
    """What is compared, or given to a function, filter or test."""
    if isinstance(place, nodes.Compare):
        yield place.expr
        yield from (operand.expr for operand in place.ops)
    elif isinstance(place, (nodes.Call, nodes.Filter, nodes.Test)):
        yield from place.args


def _is_output(place: nodes.Node) -> bool:
    """Calls that make text, rather than look at some."""
    return isinstance(place, nodes.Call) and isinstance(place.node, nodes.EnvironmentAttribute)


def unused_character(value: Any) -> str:
    """A character of private use that occurs in no text of `value`.

    Raises:
        InvalidPromptError: all of them occur.
    """
    everything = "\n".join(_texts(value))
    for code in GUARDS:
        if chr(code) not in everything:
            return chr(code)
    raise InvalidPromptError(
        "the messages hold every character of Unicode's private use area; leave one of them out",
        param="messages",
    )


def has_markers(value: Any, markers: re.Pattern[str]) -> bool:
    """Whether any text of `value`, keys included, holds a marker."""
    return any(markers.search(text) for text in _texts(value))


def guarded(value: Any, markers: re.Pattern[str], guard: str) -> Any:
    """A copy of `value` with `guard` after the first character of each marker in its texts."""
    if isinstance(value, str):
        while markers.search(value):  # again: what overlapped is left
            value = markers.sub(lambda found: found[0][0] + guard + found[0][1:], value)
        return value
    if isinstance(value, Mapping):
        return {
            guarded(key, markers, guard): guarded(item, markers, guard)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [guarded(item, markers, guard) for item in value]
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
