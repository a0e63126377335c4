"""From the shape that is asked for to the library's notation, after all that can be checked beforehand."""

from __future__ import annotations

import json
import re

from quire.errors import InvalidParamsError
from quire.grammar.schema import check_schema, for_compiler
from quire.grammar.tags import tags_source
from quire.grammar.vocabulary import Vocabulary
from quire.structured_outputs import StructuredOutputsParams

MAX_BYTES = 256 << 10  # of what is asked for
GBNF = re.compile(r"(?m)^\s*[\w-]+\s*::=")  # a rule of that notation; all else is taken for Lark's


def grammar_source(params: StructuredOutputsParams, vocabulary: Vocabulary) -> str:
    """The grammar in the library's notation.

    Raises:
        InvalidParamsError: it is too large, or holds what cannot be enforced.
    """
    kind = params.kind
    value = getattr(params, kind)
    if kind in ("json", "json_object"):
        schema = {"type": "object"} if kind == "json_object" else value
        schema = for_compiler(check_schema(schema), params.whitespace_pattern)
        return json.dumps({"grammars": [{"json_schema": schema}]})
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > MAX_BYTES:
        raise InvalidParamsError(
            f"structured_outputs.{kind} has {len(text)} bytes, and at most {MAX_BYTES} are allowed",
            param=f"structured_outputs.{kind}",
        )
    if kind == "structural_tag":
        return _lark(tags_source(value, vocabulary))
    if kind == "regex":
        return _lark(f"start: /{_lark_regex(value)}/")
    if kind == "choice":
        # One terminal: as alternatives of a rule no more than 2,000 would be taken.
        choices = " | ".join(json.dumps(one, ensure_ascii=False) for one in value)
        return _lark(f"start: CHOICE\nCHOICE: {choices}")
    return _lark(_grammar(value))


def _lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def _lark_regex(pattern: str) -> str:
    from llguidance import regex_to_lark

    return regex_to_lark(pattern, "")


def _grammar(text: str) -> str:
    """A user's grammar in Lark's notation; the schemas within it are checked as others are."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        lark = gbnf_to_lark(text) if GBNF.search(text) else text
    except Exception as error:  # it has errors of its own, and those of a parser written in a hurry
        raise InvalidParamsError(
            f"structured_outputs.grammar cannot be read as GBNF: {error}",
            param="structured_outputs.grammar",
        ) from None
    head, *parts = lark.split("%json")
    checked = [head]
    for part in parts:
        start = len(part) - len(part.lstrip())
        try:
            schema, end = json.JSONDecoder().raw_decode(part, start)
        except (ValueError, RecursionError) as error:
            raise InvalidParamsError(
                f"structured_outputs.grammar: %json must be followed by a schema: {error}",
                param="structured_outputs.grammar",
            ) from None
        schema = check_schema(schema, "structured_outputs.grammar")
        checked.append(f" {json.dumps(for_compiler(schema))}{part[end:]}")
    return "%json".join(checked)
