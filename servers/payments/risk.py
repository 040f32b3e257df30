"""What a fraud rule says of a payment before its card is charged: go on, or have a person look first.

A port with a deadline. Where no answer comes in time, what happens is said by a setting and never by accident: "closed" has a
person look, "open" goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from servers.kernel.money import Money
from servers.runtime.channels import PeerUnavailable

DEADLINE_SECONDS: Final = 0.15
NO_ANSWER: Final = "NO_ANSWER"

_log = structlog.get_logger("risk")
_assessed = Counter("paymesh_risk_assessments_total", "Payments that fraud rules looked at", ["outcome"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about."""

    payment_id: str
    merchant_id: str
    customer_id: str
    amount: Money
    off_session: bool
    from_wallet: bool


@dataclass(frozen=True, slots=True)
class Assessment:
    """The answer: why a person shall look, or nothing."""

    reasons: tuple[str, ...] = ()

    @property
    def review(self) -> bool:
        """Whether a person shall look first."""
        return bool(self.reasons)


CLEAR: Final = Assessment()


class Risk(Protocol):
    """Whoever knows the rules."""

    async def assess(self, question: Question) -> Assessment:
        """Say what is to be done. May raise PeerUnavailable."""


class Thresholds:
    """The rules of a deployment without a fraud server: a person looks at sums above a threshold of their currency."""

    def __init__(self, review_above_minor: Mapping[str, int]) -> None:
        self._above = dict(review_above_minor)

    async def assess(self, question: Question) -> Assessment:
        """Compare the amount with its currency's threshold; currencies without one are not looked at."""
        threshold = self._above.get(question.amount.currency)
        if threshold is None or question.amount.amount_minor <= threshold:
            return CLEAR
        return Assessment(("AMOUNT_ABOVE_THRESHOLD",))


class Screening:
    """Asks within the deadline, and decides where there is no answer."""

    def __init__(self, risk: Risk, *, closed: bool, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._risk = risk
        self._closed = closed
        self._deadline = deadline_seconds

    async def assess(self, question: Question) -> Assessment:
        """Return the answer, or what stands in for it."""
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._risk.assess(question)
        except (TimeoutError, PeerUnavailable) as error:
            _log.warning("risk.no_answer", payment_id=question.payment_id, error=type(error).__name__)
            _assessed.labels("no_answer").inc()
            return Assessment((NO_ANSWER,)) if self._closed else CLEAR
        _assessed.labels("review" if answer.review else "clear").inc()
        return answer
