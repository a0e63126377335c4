"""Compiling on threads of its own: once for all, within bounds, and without harm when it goes wrong."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future
from typing import Any

import pytest

import grammar_walks as walks
from quire.errors import InvalidParamsError
from quire.grammar import CompiledGrammar, GrammarCompiler, compiler
from quire.structured_outputs import StructuredOutputsParams

LONG = 30.0  # seconds; what waits so long has failed


def shape(**given: Any) -> StructuredOutputsParams:
    return StructuredOutputsParams(**given)


def test_equal_grammars_are_compiled_once() -> None:
    own = GrammarCompiler(walks.vocabulary())
    first, second = own.compile(shape(choice=["a", "b"])), own.compile(shape(choice=["a", "b"]))
    assert first is second and first.result(LONG).matcher().forced_tokens() == []
    assert own.compile(shape(choice=["b", "a"])) is not first
    own.close()


def test_waiting_for_it_cannot_cancel_it() -> None:
    own = GrammarCompiler(walks.vocabulary())
    future = own.compile(shape(choice=["a", "b"]))
    assert not future.cancel()
    assert future.result(LONG)
    own.close()


def test_the_longest_unused_go_first() -> None:
    size = compiler.GRAMMAR_BYTES + compiler.BYTES_PER_BYTE * 100
    own = GrammarCompiler(walks.vocabulary(), cache_bytes=3 * size)
    kept = own.compile(shape(choice=["kept"]))
    gone = own.compile(shape(choice=["gone"]))
    for i in range(4):
        own.compile(shape(choice=[f"other {i}"])).result(LONG)
        assert own.compile(shape(choice=["kept"])) is kept
    assert own.compile(shape(choice=["gone"])) is not gone
    own.close()


def test_what_takes_too_long_is_refused_and_its_result_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: Future[None] = Future()

    def compile_slowly(*_: object) -> CompiledGrammar:
        done.result(LONG)
        return walks.grammar(choice=["late"])

    monkeypatch.setattr(compiler, "compile_source", compile_slowly)
    own = GrammarCompiler(walks.vocabulary(), seconds=0.01)
    future = own.compile(shape(choice=["a"]))
    error = future.exception(LONG)
    assert isinstance(error, InvalidParamsError) and "more than 0.01 s" in error.message
    done.set_result(None)
    own.close()
    assert future.exception() is error


def test_a_fault_of_the_library_is_the_futures(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> CompiledGrammar:
        raise RuntimeError("a bug")

    monkeypatch.setattr(compiler, "compile_source", fail)
    own = GrammarCompiler(walks.vocabulary())
    assert isinstance(own.compile(shape(choice=["a"])).exception(LONG), RuntimeError)
    own.close()


TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "children": {"type": "array", "items": {"$ref": "#"}},
    },
    "required": ["value", "children"],
    "additionalProperties": False,
}
LETTERS = [chr(c) for c in range(97, 123)]
COSTLY: dict[str, dict[str, Any]] = {
    "nested repeats": {"regex": "((a{1,1000}){1,1000}){1,1000}"},
    "an exponential automaton": {"regex": "(.*a){1,200}b"},
    "ambiguous repeats": {"regex": "(a|aa|aaa){500}(b|bb){500}"},
    "optional repeats": {"regex": "(?:a?){300}a{300}"},
    "far lookback": {"regex": "[ab]*a[ab]{200}"},
    "an enum of 10,000": {"json": {"enum": [f"value {i}" for i in range(10_000)]}},
    "10,000 choices": {"choice": [f"choice {i}" for i in range(10_000)]},
    "a tree": {"json": TREE},
    "1,000 properties": {"json": {"properties": {f"p{i}": {"type": "null"} for i in range(1000)}}},
    "long strings": {"json": {"type": "array", "minItems": 100_000, "items": {"maxLength": 10**6}}},
    "every pattern": {"json": {"patternProperties": {f"^{c}": {} for c in LETTERS}}},
    "a grammar of everything": {"grammar": "start: start start | /(.|\\n)/"},
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_costly_grammars_are_followed_or_refused_in_bounded_time(name: str) -> None:
    begin = time.process_time()
    try:
        compiled = walks.grammar(**COSTLY[name])
    except InvalidParamsError:
        assert time.process_time() - begin < compiler.SECONDS
        return
    assert time.process_time() - begin < compiler.SECONDS
    matcher, choice = compiled.matcher(), random.Random(1)
    for _ in range(20):
        possible = walks.allowed(matcher).tolist()
        if matcher.error or matcher.is_finished:
            break
        matcher.accept(choice.choice(possible))
