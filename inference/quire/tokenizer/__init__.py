"""Text to token ids and back, and conversations to prompts."""

from __future__ import annotations

from quire.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
