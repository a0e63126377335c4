"""Whether an engine would answer: a judgement from its thread's own signs of life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STUCK_AFTER = 30.0  # seconds without a step while work waits
FAILING_AFTER = 3  # requests in a row whose logits were NaN or infinite


@dataclass(frozen=True, slots=True)
class Health:
    """What `Engine.health` found.

    Args:
        status: "ok"; "stuck": work waits and no step has ended for `STUCK_AFTER` seconds; "failing": the
            last `FAILING_AFTER` requests got NaN or infinite logits, and no token came since; "draining":
            it takes nothing new; "dead": its thread has ended.
        reason: in words, where it is not "ok".
    """

    status: Literal["ok", "stuck", "failing", "draining", "dead"]
    reason: str | None = None

    @property
    def ok(self) -> bool:
        """Whether a request would be answered."""
        return self.status == "ok"
