"""The HTTP library that the installed openai stands on: `httpx2`, or `httpx` for openai 2.

Nothing is sent with it. Its requests and responses are what openai's errors, raw responses and transports are
made of.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import openai

if TYPE_CHECKING:
    import httpx2 as httpx
else:
    httpx = importlib.import_module(openai.Timeout.__init__.__module__.partition(".")[0])

__all__ = ["BASE_URL", "httpx"]

BASE_URL = "http://quire.invalid/v1"  # a name that stands for no machine (RFC 2606)
