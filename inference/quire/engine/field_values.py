"""Which values a schema leaves a field, where these are few: enum, const, boolean, null and unions of them.

What is told may hold values that the grammar rules out for other reasons (a pattern, a sibling's value); it
never lacks one that the grammar allows. It knows no tokens and no text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

Schema = Any  # a JSON schema: a dict or a boolean

MAX_VALUES = 64
MAX_DEPTH = 32  # parts of a path, and schemas within schemas


def possible_values(schema: Schema, path: str) -> list[Any] | None:
    """The values that the field at a JSON pointer may have, each once; None: many, or unknown."""
    parts = [one.replace("~1", "/").replace("~0", "~") for one in path.split("/")[1:]]
    if len(parts) > MAX_DEPTH:
        return None
    walk = _Walk(schema)
    for part in parts:
        schema = walk.within(schema, part)
    values = walk.values(schema)
    return values if values is not None and len(values) <= MAX_VALUES else None


class _Walk:
    def __init__(self, root: Schema) -> None:
        self._root = root

    def within(self, schema: Schema, part: str, depth: int = 0) -> Schema:
        """The schema of a child of what has this schema; False: it has no such child."""
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return bool(schema)
        found = [self._direct(schema, part)]
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                children = (self.within(one, part, depth + 1) for one in schema[keyword])
                found.append({"anyOf": _each_once(children)})
        found += [self.within(one, part, depth + 1) for one in schema.get("allOf", ())]
        if "$ref" in schema:
            found.append(self.within(self._target(schema["$ref"]), part, depth + 1))
        said = _each_once(one for one in found if one is not True)
        if not said:
            return True
        return said[0] if len(said) == 1 else {"allOf": said}

    def _direct(self, schema: dict[str, Any], part: str) -> Schema:
        """What the schema's own keywords say of a child."""
        types = schema.get("type", ["object", "array"])
        types = [types] if isinstance(types, str) else types
        given = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if given is not None:
            return {"enum": [one[part] for one in given if isinstance(one, dict) and part in one]}
        found = []
        if "object" in types:
            found.append(self._member(schema, part))
        if "array" in types and part.isdigit():
            first: Sequence[Schema] = schema.get("prefixItems", ())
            index = int(part)
            found.append(first[index] if index < len(first) else schema.get("items", True))
        if not found:
            return False
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _member(self, schema: dict[str, Any], name: str) -> Schema:
        if name in schema.get("properties", {}):
            return schema["properties"][name]
        for pattern, one in schema.get("patternProperties", {}).items():
            try:
                if re.search(pattern, name):
                    return one
            except re.error:  # Rust's expressions are not Python's
                return True
        return schema.get("additionalProperties", True)

    def values(self, schema: Schema, depth: int = 0) -> list[Any] | None:
        """The values that satisfy a schema, or a few more; None: very many."""
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return [] if schema is False else None
        sets: list[list[Any] | None] = [self._own(schema)]
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                sets.append(_union(self.values(one, depth + 1) for one in schema[keyword]))
        sets += [self.values(one, depth + 1) for one in schema.get("allOf", ())]
        if "$ref" in schema:
            sets.append(self.values(self._target(schema["$ref"]), depth + 1))
        finite = [one for one in sets if one is not None]
        if not finite:
            return None
        return _each_once(
            one for one in finite[0] if all(_holds(other, one) for other in finite[1:])
        )

    @staticmethod
    def _own(schema: dict[str, Any]) -> list[Any] | None:
        types = schema.get("type")
        if "const" in schema:
            return [schema["const"]]
        if "enum" in schema:
            return list(schema["enum"])
        few: dict[str, list[Any]] = {"boolean": [False, True], "null": [None]}
        names = [types] if isinstance(types, str) else types
        if names and all(name in few for name in names):
            return [value for name in names for value in few[name]]
        return None

    def _target(self, ref: str) -> Schema:
        """What a reference within the schema names; True, which says nothing, for other kinds of them."""
        if not ref.startswith("#") or (ref != "#" and not ref.startswith("#/")):
            return True
        found = self._root
        for part in unquote(ref).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found


def _union(branches: Iterable[list[Any] | None]) -> list[Any] | None:
    found: list[Any] = []
    for values in branches:
        if values is None:
            return None
        found += values
    return found


def _holds(values: list[Any], value: Any) -> bool:
    return any(json.dumps(one) == json.dumps(value) for one in values)


def _each_once(items: Iterable[Any]) -> list[Any]:
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())
