"""Templates that compute too long, write too much or reach for more than they may."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateRuntimeError

import quire
from quire.errors import InvalidPromptError, PromptTooLongError
from quire.tokenizer.sandbox import TemplateSandbox


def run(source: str, max_characters: int = 1000, **variables: Any) -> str:
    """On a clock of which every look takes a millisecond: 5,000 turns are too many."""
    ticks = itertools.count()
    sandbox = TemplateSandbox(seconds=5, clock=lambda: next(ticks) / 1000)
    return sandbox.run(sandbox.from_string(source), variables, max_characters)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        "{% macro f(n) %}{% if n %}{% call m() %}{{ f(n - 1) }}{% endcall %}{% endif %}{% endmacro %}"
        "{{ f(40) }}",
        "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    ],
)
def test_a_template_has_a_deadline(source: str) -> None:
    with pytest.raises((InvalidPromptError, RecursionError), match=r"more than 5 s|recursion"):
        run(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(2000) %}x{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ 10**9 * 'x' }}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[0]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    ],
)
def test_what_a_template_makes_is_bounded(source: str) -> None:
    with pytest.raises(PromptTooLongError, match="more than 1000 characters"):
        run(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 2 ** 2000 }}",
        "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace(__init__=1) }}",
        "{{ namespace().__init__.x }}",
        "{{ dict.__globals__.os }}",
        "{{ strftime_now.__globals__.os }}",
        "{{ raise_exception.__self__.x }}",
        "{{ ''.format.__self__.x }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
    ],
)
def test_what_a_template_must_not_touch(source: str) -> None:
    with pytest.raises(TemplateRuntimeError):
        run(source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 1 ~ 'a' ~ none }}", "1aNone"),
        ("{{ 'a' + 'b' * 3 }} {{ 2 ** 3 }} {{ 1.5 + 1 }} {{ 2 * 3 }}", "abbb 8 2.5 6"),
        ("{{ ([1] + [2]) | length }}", "2"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("a{% generation %}{{ x }}{% endgeneration %}b", "ayb"),
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ dict(a=1).a }}{% set ns = namespace(self=2) %}{{ ns.self }}", "12"),
        ("{% set ns = namespace(x=0) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
         "3"),
        ("{% macro m(a) %}<{{ a }}{{ caller() }}>{% endmacro %}{% call m(1) %}z{% endcall %}", "<1z>"),
        ("  {% if true %}\n  a\n  {% endif %}\n", "  a\n"),
    ],
)  # fmt: skip
def test_templates_do_what_they_do_with_transformers(source: str, text: str) -> None:
    assert run(source, x="y") == text


def test_the_clock_is_there(tmp_path: Path) -> None:
    assert run("{{ strftime_now('%Y') }}") >= "2024"


def test_there_is_one_environment_in_the_tree() -> None:
    """Templates run here and nowhere else, and transformers' own sandbox has no deadline."""
    found = []
    for path in sorted(Path(quire.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.ImportFrom(module=str(module)) if module.startswith("jinja2"):
                    found.append(path.name)
                case ast.Attribute(attr="apply_chat_template"):
                    names = ast.unparse(node)
                    assert names == "self._hf.apply_chat_template", f"{path}: {names}"
                    assert path.name == "chat.py"
    assert set(found) == {"chat.py", "markers.py", "sandbox.py"}
