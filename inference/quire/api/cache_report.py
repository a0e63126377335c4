"""`cache_report`: how much of a prompt the prefix cache holds, and where a near miss first differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.api.backend import Backend
from quire.api.calls import Call
from quire.api.protocol.fields import CallFields
from quire.engine.prompts import ParsedPrompt


async def cache_report(
    backend: Backend,
    request: CallFields,
    call: Call,
    prompts: Sequence[ParsedPrompt],
    messages: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The field `cache_report` of an answer, if the request asks for it; made before it is queued."""
    return {}
