"""Structural tags: free text, with structure inside given tags only.

Two notations, as vLLM takes them: a list of structures with triggers, and `{"type": "structural_tag",
"format": ...}` with formats within formats. Both become one grammar in Lark's notation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from quire.errors import InvalidParamsError
from quire.grammar.schema import check_schema, for_compiler
from quire.grammar.vocabulary import Vocabulary

NAME = "structured_outputs.structural_tag"
MAX_FORMATS = 1_000  # and so many rules


def tags_source(tag: dict[str, Any], vocabulary: Vocabulary) -> str:
    """The grammar of a structural tag, in Lark's notation.

    Raises:
        InvalidParamsError: naming the format and the field at fault.
    """
    return _Writer(vocabulary).write(tag)


class _Writer:
    """Writes rules, one for each format that needs one."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._markers = vocabulary.markers
        # Those that free text may hold; no end of a sequence is.
        ends = vocabulary.eos_token_ids
        self._plain = {text: id for text, id in vocabulary.plain_markers.items() if id not in ends}
        longest_first = sorted((re.escape(text) for text in self._markers), key=len, reverse=True)
        self._any_marker = re.compile("|".join(longest_first)) if longest_first else None
        self._rules: list[str] = ["TEXT: /(.|\\n)+/"]
        self._num_formats = 0

    def write(self, tag: dict[str, Any]) -> str:
        if "structures" in tag:
            body = self._structures(tag)
        elif tag.get("type") == "structural_tag":
            _known(tag, ("type", "format"), "#")
            body = self._format(_field(tag, "format", dict, "#"), "#/format")
        else:
            raise _refusal('"structures" with "triggers", or "type" and "format" are needed')
        return "\n".join(["%llguidance {}", f"start: {body}", *self._rules, ""])

    def _structures(self, tag: dict[str, Any]) -> str:
        _known(tag, ("type", "structures", "triggers"), "#")
        tags = []
        for i, one in enumerate(_field(tag, "structures", list, "#")):
            path = f"#/structures/{i}"
            _must(isinstance(one, dict), "must be an object", path)
            _known(one, ("begin", "schema", "end"), path)
            schema = {"type": "json_schema", "json_schema": one.get("schema", {})}
            tags.append({"begin": one.get("begin"), "content": schema, "end": one.get("end")})
        return self._triggered({"triggers": tag.get("triggers"), "tags": tags}, "#")

    def _format(self, value: Any, path: str) -> str:
        """A format as an expression."""
        _must(isinstance(value, dict), "a format must be an object", path)
        self._num_formats += 1
        _must(self._num_formats <= MAX_FORMATS, f"more than {MAX_FORMATS} formats", path)
        kind = value.get("type")
        if kind == "const_string":
            _known(value, ("type", "value"), path)
            return self._literal(_field(value, "value", str, path))
        if kind == "json_schema":
            _known(value, ("type", "json_schema"), path)
            return _schema(value.get("json_schema"), path)
        if kind == "regex":
            _known(value, ("type", "pattern"), path)
            return _regex(_field(value, "pattern", str, path))
        if kind == "any_text":
            _known(value, ("type",), path)
            return self._rule(self._text())
        if kind in ("sequence", "or"):
            _known(value, ("type", "elements"), path)
            elements = _field(value, "elements", list, path)
            _must(elements, "needs elements", path)
            parts = [self._format(one, f"{path}/elements/{i}") for i, one in enumerate(elements)]
            return self._rule((" " if kind == "sequence" else " | ").join(parts))
        if kind == "tag":
            return self._tag(value, path)
        if kind == "triggered_tags":
            return self._triggered(value, path)
        if kind == "tags_with_separator":
            return self._separated(value, path)
        raise _refusal(
            f"the format {kind!r} is not supported; there are const_string, json_schema, regex, "
            "any_text, sequence, or, tag, triggered_tags, tags_with_separator",
            path,
        )

    def _tag(self, value: Any, path: str, begins_with: str = "") -> str:
        """A tag behind what of its beginning has been written already."""
        _must(isinstance(value, dict), "a tag must be an object", path)
        _known(value, ("type", "begin", "content", "end"), path)
        begin, end = _field(value, "begin", str, path), _field(value, "end", str, path)
        head = self._literal(begin[len(begins_with) :])
        content = _field(value, "content", dict, path)
        if content.get("type") == "any_text":
            _must(end, "any_text needs an end that is not empty", path)
            return self._rule(f"{head} {self._text_until(end)}")
        body = self._format(content, f"{path}/content")
        return self._rule(f"{head} {body} {self._literal(end)}")

    def _triggered(self, value: dict[str, Any], path: str) -> str:
        """Text, and behind each trigger one of its tags."""
        fields = ("type", "triggers", "tags", "at_least_one", "stop_after_first")
        _known(value, fields, path)
        triggers = _field(value, "triggers", list, path)
        tags = _field(value, "tags", list, path)
        _must(triggers and all(isinstance(one, str) and one for one in triggers),
              "triggers must be non-empty texts", path)  # fmt: skip
        _must(tags, "needs at least one tag", path)
        by_trigger: dict[str, list[str]] = {trigger: [] for trigger in triggers}
        for i, tag in enumerate(tags):
            here = f"{path}/tags/{i}"
            _must(isinstance(tag, dict), "a tag must be an object", here)
            begin = _field(tag, "begin", str, here)
            trigger = next((one for one in triggers if begin.startswith(one)), None)
            _must(trigger is not None, f"{begin!r} begins with none of the triggers", here)
            assert trigger is not None
            by_trigger[trigger].append(self._tag(tag, here, trigger))
        unused = [trigger for trigger, tags in by_trigger.items() if not tags]
        _must(not unused, f"no tag begins with the trigger {unused[:1]}", path)
        one = self._rule(
            " | ".join(
                f"{self._text_until(trigger)} ({' | '.join(tags)})"
                for trigger, tags in by_trigger.items()
            )
        )
        text = self._text(*triggers)
        at_least, first_only = value.get("at_least_one"), value.get("stop_after_first")
        if first_only:
            return one if at_least else self._rule(f"{one} | {text}")
        return self._rule(f"{one}{'+' if at_least else '*'} {text}")

    def _separated(self, value: dict[str, Any], path: str) -> str:
        """Tags with a separator between them, and nothing else."""
        fields = ("type", "tags", "separator", "at_least_one", "stop_after_first")
        _known(value, fields, path)
        tags = _field(value, "tags", list, path)
        _must(tags, "needs at least one tag", path)
        separator = self._literal(_field(value, "separator", str, path))
        one = self._rule(
            " | ".join(self._tag(tag, f"{path}/tags/{i}") for i, tag in enumerate(tags))
        )
        more = one if value.get("stop_after_first") else f"{one} ({separator} {one})*"
        return self._rule(more) if value.get("at_least_one") else f"({more})?"

    def _rule(self, body: str) -> str:
        name = f"rule_{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def _text(self, *ends: str) -> str:
        """Text of any length, with the model's markers in it, but for those in `ends`."""
        ids = [id for text, id in self._plain.items() if not any(text in end for end in ends)]
        if not ids:
            return "TEXT?"
        return f"(TEXT? <[{','.join(map(str, ids))}]>)* TEXT?"

    def _text_until(self, end: str) -> str:
        """Text up to where `end` first stands, and `end` with it."""
        text = self._text(end)
        if self._any_marker is not None and self._any_marker.match(end):
            return f"{text} {self._literal(end)}"
        name = f"rule_{len(self._rules)}"
        self._rules.append(f"{name}[lazy]: /(.|\\n)*/ {json.dumps(end, ensure_ascii=False)}")
        return f"{text.removesuffix(' TEXT?').removesuffix('TEXT?')} {name}"

    def _literal(self, text: str) -> str:
        """A text as an expression, in which the model's markers are those tokens."""
        parts = []
        last = 0
        for found in self._any_marker.finditer(text) if self._any_marker is not None else ():
            parts.append(text[last : found.start()])
            parts.append(f"<[{self._markers[found[0]]}]>")
            last = found.end()
        parts.append(text[last:])
        written = [
            part if i % 2 else json.dumps(part, ensure_ascii=False)
            for i, part in enumerate(parts)
            if part
        ]
        return " ".join(written) or '""'


def _schema(value: Any, path: str) -> str:
    checked = check_schema(value, NAME, f"{path}/json_schema")
    return f"%json {json.dumps(for_compiler(checked))}"


def _regex(pattern: str) -> str:
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(pattern, '')}/"


def _field(value: dict[str, Any], name: str, kind: type, path: str) -> Any:
    found = value.get(name)
    _must(isinstance(found, kind), f"needs {name!r}, a {kind.__name__}", path)
    return found


def _known(value: dict[str, Any], names: Sequence[str], path: str) -> None:
    for name in value:
        _must(
            name in names,
            f"the field {name!r} is not supported; there are {', '.join(names)}",
            path,
        )


def _must(condition: object, what: str, path: str) -> None:
    if not condition:
        raise _refusal(what, path)


def _refusal(why: str, path: str = "#") -> InvalidParamsError:
    return InvalidParamsError(f"{NAME} cannot be enforced: {path}: {why}", param=NAME)
