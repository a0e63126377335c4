"""Tool-call formats: one small file for each, and the choice among them from a chat template's text."""

from __future__ import annotations

from quire.formats.names import by_name
from quire.formats.tools.base import Tool, ToolFormat, ToolParser
from quire.formats.tools.deepseek import DeepSeek, DeepSeekFenced
from quire.formats.tools.generic_json import GenericJson
from quire.formats.tools.granite import Granite
from quire.formats.tools.hermes import Hermes
from quire.formats.tools.llama_json import LlamaJson
from quire.formats.tools.mistral import Mistral, MistralNamed
from quire.formats.tools.phi4 import Phi4
from quire.formats.tools.pythonic import Pythonic
from quire.formats.tools.qwen_xml import QwenXml

__all__ = ["FORMATS", "Tool", "ToolFormat", "ToolParser", "find_tool_format"]

# In the order in which templates are asked: what is told by the least is last.
FORMATS: tuple[ToolFormat, ...] = (
    QwenXml(),
    DeepSeekFenced(),
    DeepSeek(),
    MistralNamed(),
    Mistral(),
    Phi4(),
    Granite(),
    Pythonic(),
    LlamaJson(),
    Hermes(),
    GenericJson(),
)


def find_tool_format(chat_template: str | None, override: str | None = None) -> ToolFormat | None:
    """The format that a chat template writes calls in, or the one that is named.

    Returns:
        None if the template has no place for calls that is known.

    Raises:
        ConfigError: no format has the name `override`; the message lists them.
    """
    if override is not None:
        return by_name(FORMATS, override, "tool-call format", "tool_call_parser")
    return next((one for one in FORMATS if one.recognizes(chat_template or "")), None)
