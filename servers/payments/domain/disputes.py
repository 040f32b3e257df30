"""Disputes: what is known of one, what Stripe says of it, and the way from the one to the other."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from servers.kernel.money import Money
from servers.payments.domain.states import DISPUTE, DisputeStage, DisputeState, FeePayer

_D = DisputeState
_S = DisputeStage
_OPEN: Final = frozenset({_D.NEEDS_RESPONSE, _D.UNDER_REVIEW, _D.ACCEPTED})
_ENDINGS: Final = frozenset({"win", "lose"})
_ONLY_IN_INQUIRY: Final = frozenset({"close", "escalate", "take_back"})
_NEVER_IN_INQUIRY: Final = frozenset({"accept", "win", "lose", "concede", "let_go"})
_STAGES_TAKEN: Final = {"escalate": _S.CHARGEBACK, "take_back": _S.CHARGEBACK, "reopen": _S.PRE_ARBITRATION}


class NoWay(Exception):
    """Stripe says something of a dispute that no listed arrow leads to from where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FundsMovement:
    """One of Stripe's balance transactions for a dispute: `amount` is negative where the disputed money was withdrawn, `fee` where
    a fee was given back."""

    id: str
    amount: Money
    fee: Money
    create_time: datetime

    @property
    def trigger(self) -> str:
        """The arrow that tells of it."""
        return "withdraw" if self.amount.amount_minor < 0 else "reinstate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A cardholder's objection to a charge."""

    id: str
    payment_id: str
    owner_id: str
    top_up_id: str
    """The top-up that its payment is; empty for a sale."""
    stripe_dispute_id: str
    """Empty while there is only a warning."""
    stripe_warning_id: str
    stage: DisputeStage
    state: DisputeState
    amount: Money
    at_risk: Money
    """What it may cost, in the payment's currency."""
    reason: str
    evidence_due_time: datetime | None
    has_evidence: bool
    past_due: bool
    submission_count: int
    accepting: bool
    """Its merchant's wish to accept it is on its way to Stripe."""
    fee_payer: FeePayer
    stage_time: datetime
    version: int
    create_time: datetime
    update_time: datetime
    movements: tuple[FundsMovement, ...] = ()

    @property
    def merchant_id(self) -> str:
        """The merchant whose payment it is; empty for a top-up, which has none."""
        return "" if self.top_up_id else self.owner_id

    @property
    def counted_minor(self) -> int:
        """How much of the payment's money it takes up: that of a chargeback which is not won."""
        return 0 if self.stage is _S.INQUIRY or self.state is _D.WON else self.at_risk.amount_minor

    @property
    def is_open_chargeback(self) -> bool:
        """Whether it holds its owner's money."""
        return self.stage is not _S.INQUIRY and self.state in _OPEN

    @property
    def fee(self) -> Money | None:
        """What Stripe took for it so far, if anything."""
        fees = [movement.fee for movement in self.movements]
        return sum(fees[1:], start=fees[0]) if fees else None

    @property
    def available_actions(self) -> tuple[str, ...]:
        """The verbs that its merchant may use."""
        if self.accepting or self.stage is _S.INQUIRY:
            return ()
        return DISPUTE.available_actions(self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeNews:
    """How a dispute stands at Stripe. Of the stages Stripe tells an inquiry, which takes no money, from all that come after it."""

    stripe_dispute_id: str
    payment_intent_id: str
    charge_id: str
    is_inquiry: bool
    state: DisputeState
    amount: Money
    reason: str
    evidence_due_time: datetime | None
    has_evidence: bool
    past_due: bool
    submission_count: int
    create_time: datetime
    movements: tuple[FundsMovement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningNews:
    """An issuer's report of fraud, at Stripe."""

    stripe_warning_id: str
    payment_intent_id: str
    charge_id: str
    reason: str
    create_time: datetime


def steps_to(
    state: DisputeState | None, stage: DisputeStage, news: DisputeNews, *, accepting: bool = False
) -> tuple[tuple[str, DisputeStage], ...]:
    """Return the shortest way along the listed arrows to where Stripe says that a dispute is, each with the stage after it; none
    where it is there. Raises NoWay."""
    todo: deque[tuple[DisputeState | None, DisputeStage, tuple[tuple[str, DisputeStage], ...]]] = deque()
    todo.append((state, stage, ()))
    seen = {(state, stage)}
    while todo:
        here, at, way = todo.popleft()
        if here is news.state and (at is _S.INQUIRY) == news.is_inquiry:
            return way
        for trigger, target, then in _next(here, at, news, accepting=accepting):
            # Nobody has won what Stripe does not say was won: WON is where a way begins or ends.
            passes_won = target is _D.WON and news.state is not _D.WON
            if (target, then) not in seen and not passes_won:
                seen.add((target, then))
                todo.append((target, then, (*way, (trigger, then))))
    name = state.name if state is not None else "new"
    raise NoWay(f"Stripe says {news.state.name} of a dispute in {name}, and no way leads there.")


def _next(
    state: DisputeState | None, stage: DisputeStage, news: DisputeNews, *, accepting: bool
) -> list[tuple[str, DisputeState, DisputeStage]]:
    found = []
    for arrow in DISPUTE.arrows:
        trigger = arrow.trigger
        if arrow.source is not state or (arrow.source is arrow.target and trigger not in _STAGES_TAKEN):
            continue
        if (stage is _S.INQUIRY and trigger in _NEVER_IN_INQUIRY) or (
            stage is not _S.INQUIRY and trigger in _ONLY_IN_INQUIRY
        ):
            continue
        # A loss that its merchant has asked for was accepted; nobody accepts what they did not ask to.
        if state is _D.NEEDS_RESPONSE and ((trigger == "accept") > accepting or (trigger == "lose" and accepting)):
            continue
        if trigger == "reopen" and stage is not _S.CHARGEBACK:
            continue
        if trigger in ("open", "dispute"):
            then = _S.INQUIRY if news.is_inquiry else _S.CHARGEBACK
        else:
            then = _STAGES_TAKEN.get(trigger, stage)
        found.append((trigger, arrow.target, then))
    return found


def walk_of(
    state: DisputeState | None,
    stage: DisputeStage,
    news: DisputeNews,
    *,
    known: frozenset[str] = frozenset(),
    accepting: bool = False,
) -> tuple[tuple[str, DisputeStage, FundsMovement | None], ...]:
    """Return every arrow that news makes a dispute walk: its way, and Stripe's movements of money that are not `known`. What was
    withdrawn comes before the end that says whose it is, what was reinstated after it. Raises NoWay."""
    way = steps_to(state, stage, news, accepting=accepting)
    new = sorted((one for one in news.movements if one.id not in known), key=lambda one: (one.create_time, one.id))
    before = [step for step in way if step[0] not in _ENDINGS]
    after = [step for step in way if step[0] in _ENDINGS]
    middle = before[-1][1] if before else stage
    end = after[-1][1] if after else middle
    withdrawn = [one for one in new if one.trigger == "withdraw"]
    reinstated = [one for one in new if one.trigger == "reinstate"]
    return (
        *((trigger, then, None) for trigger, then in before),
        *((one.trigger, middle, one) for one in withdrawn),
        *((trigger, then, None) for trigger, then in after),
        *((one.trigger, end, one) for one in reinstated),
    )
