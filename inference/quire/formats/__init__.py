"""What models write beside plain text: tool calls and thoughts, and how they are told from it.

Pure functions and small state machines over text, of the standard library alone. Nothing here knows a
tokenizer, an engine or OpenAI's shapes; grammars are written (`lark`), not compiled.
"""
