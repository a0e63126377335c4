"""`cache_report`: how much of a prompt the prefix cache holds, and where a near miss first differs.

The engine tells tokens and texts; what is added here is the message that the difference lies in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.api.backend import Backend, cache_salt
from quire.api.calls import Call
from quire.api.protocol.fields import CallFields
from quire.engine.prefix_report import PrefixDifference, PrefixReport
from quire.engine.prompts import ParsedPrompt
from quire.tokenizer import Tokenizer


async def chat_report(
    backend: Backend,
    request: CallFields,
    call: Call,
    prompt: ParsedPrompt,
    messages: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The field `cache_report` of an answer to a conversation, if the request asks for it.

    Made before the prompt is queued, which would find itself.

    Args:
        messages: that the prompt was made of.
    """
    if not request.cache_report:
        return {}
    [report] = await _reports(backend, request, call, [prompt])
    shown = _shown(report, _may_quote(backend, request, call))
    if report.difference is not None:
        tokenizer = backend.engine.tokenizer
        assert tokenizer is not None, "it rendered the conversation"
        shown["difference"]["message"] = await backend.in_thread(
            lambda: _message_at(tokenizer, prompt, report.difference, messages)
        )
    return {"cache_report": shown}


async def prompt_reports(
    backend: Backend, request: CallFields, call: Call, prompts: Sequence[ParsedPrompt]
) -> dict[str, Any]:
    """The same for plain prompts: a list with one report for each."""
    if not request.cache_report:
        return {}
    reports = await _reports(backend, request, call, prompts)
    may_quote = _may_quote(backend, request, call)
    return {"cache_report": [_shown(report, may_quote) for report in reports]}


async def _reports(
    backend: Backend, request: CallFields, call: Call, prompts: Sequence[ParsedPrompt]
) -> list[PrefixReport]:
    salt = cache_salt(request, call)
    return await backend.in_thread(
        lambda: [backend.engine.explain_prefix(prompt.token_ids, salt) for prompt in prompts]
    )


def _may_quote(backend: Backend, request: CallFields, call: Call) -> bool:
    """Whether what is cached may be shown: it may be another caller's where nothing keeps them apart."""
    return backend.options.show_cached_text or cache_salt(request, call) is not None


def _shown(report: PrefixReport, may_quote: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "prompt_tokens": report.num_prompt_tokens,
        "reused_tokens": report.num_reused_tokens,
        "difference": None,
    }
    if report.difference is not None:
        shown["difference"] = {
            "position": report.difference.position,
            "cached_tokens": report.difference.num_cached_tokens,
            "text_before": report.difference.text_before,
            "prompt_text": report.difference.prompt_text,
            "cached_text": report.difference.cached_text if may_quote else None,
        }
    return shown


def _message_at(
    tokenizer: Tokenizer,
    prompt: ParsedPrompt,
    difference: PrefixDifference | None,
    messages: Sequence[dict[str, Any]],
) -> dict[str, Any] | None:
    """Index and role of the message that the difference lies in; None after the last one.

    What a template writes before a message's content counts as part of that message. A content that the
    template rewrote is not found, and taken for part of the next one.
    """
    assert difference is not None
    whole = tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
    before = tokenizer.decode(prompt.token_ids[: difference.position], skip_special_tokens=False)
    end = 0
    for index, message in enumerate(messages):
        content = _words(message).strip()
        start = whole.find(content, end)
        if start < 0 or not content:
            continue
        end = start + len(content)
        if len(before) < end:
            return {"index": index, "role": message["role"]}
    return None


def _words(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
