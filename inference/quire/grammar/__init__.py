"""Constrained decoding: from the shape that a text must have to masks over tokens.

    StructuredOutputsParams ─► source (checked, as the library's grammar) ─► GrammarCompiler (threads, cache)
                            ─► CompiledGrammar ─► Matcher, one for each sequence: masks, forced tokens

The library is llguidance, and nothing else in quire knows it. Nothing here knows requests or a model.
"""

from quire.grammar.compiled import CompiledGrammar, MaskFiller, Matcher, fill_masks
from quire.grammar.compiler import GrammarCompiler, compile_grammar
from quire.grammar.schema import check_schema
from quire.grammar.vocabulary import Vocabulary

__all__ = [
    "CompiledGrammar",
    "GrammarCompiler",
    "MaskFiller",
    "Matcher",
    "Vocabulary",
    "check_schema",
    "compile_grammar",
    "fill_masks",
]
