"""A card issuer who disputes charges, as Stripe tells of it, and a merchant's desk on real Postgres.

The issuer's answers may be held back, so that reads overtake each other, and lost.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from servers.audit.invariants import PAYMENTS, Check
from servers.kernel.ids import bucket_of, derive_id, new_id
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.client_secrets import ClientSecrets
from servers.payments.disputing import Disputing
from servers.payments.domain import (
    Attempt,
    AttemptState,
    CaptureMethod,
    Charged,
    Dispute,
    DisputeNews,
    DisputeState,
    FeePayer,
    FeePlan,
    FundsMovement,
    Manner,
    NextAction,
    OperationRefused,
    Payment,
    Purpose,
    Refund,
    RefundResult,
    RefundState,
    Source,
    WarningNews,
)
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.outcomes import Outcomes
from servers.payments.peers import Booked
from servers.payments.render import Renderer
from servers.payments.return_urls import ReturnUrls
from servers.payments.saving import Saving
from servers.payments.usecases import CreateRefund, Deps, accept_dispute, create_refund
from servers.payments.usecases.payments import new_payment
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Failure, Outbound
from tests.support.postgres import MakeDatabase

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MERCHANT, CUSTOMER = derive_id("mer", "shop", bucket=5), derive_id("usr", "ann", bucket=3)


class LostAnswer(Exception):
    """The call may have arrived."""


class NeverLeft(Exception):
    """The call provably did not."""


def classify(error: Exception) -> tuple[Failure, float | None] | None:
    """Say what an exception of the issuer's means for a call."""
    kinds = {LostAnswer: Failure.UNKNOWN, NeverLeft: Failure.NOT_SENT}
    failure = kinds.get(type(error))
    return (failure, None) if failure is not None else None


def usd(amount: int) -> Money:
    """Return dollars in cents."""
    return Money(amount_minor=amount, currency="USD")


@dataclass
class Issuer:
    """Stripe, as far as disputes and refunds go. `fails` is raised once: by the next call before it is carried out (NeverLeft), or
    after (LostAnswer)."""

    disputes: dict[str, DisputeNews] = field(default_factory=dict)
    warnings: dict[str, WarningNews] = field(default_factory=dict)
    refunds: dict[str, RefundResult] = field(default_factory=dict)
    fails: list[Exception] = field(default_factory=list)
    closed_with: list[str] = field(default_factory=list)
    reads: int = 0
    holds_answers: Callable[[], Awaitable[object]] | None = None
    before_refund: Callable[[], Awaitable[object]] | None = None
    """What happens between our intent of a refund and its arrival."""

    def dispute(self, name: str, payment: Payment, amount: int, state: str = "NEEDS_RESPONSE", **more: Any) -> str:
        """Dispute a charge. Returns Stripe's id."""
        fields = {"is_inquiry": False, "movements": (), "evidence_due_time": None, **more}
        self.disputes[f"du_{name}"] = DisputeNews(
            stripe_dispute_id=f"du_{name}", payment_intent_id=payment.stripe_payment_intent_id, charge_id="",
            state=DisputeState[state], amount=usd(amount), reason="fraudulent", has_evidence=False, past_due=False,
            submission_count=0, create_time=NOW, **fields,
        )  # fmt: skip
        return f"du_{name}"

    def warn(self, name: str, payment: Payment) -> str:
        """Report fraud. Returns Stripe's id."""
        self.warnings[f"issfr_{name}"] = WarningNews(
            stripe_warning_id=f"issfr_{name}", payment_intent_id=payment.stripe_payment_intent_id, charge_id="",
            reason="made_with_stolen_card", create_time=NOW,
        )  # fmt: skip
        return f"issfr_{name}"

    def move(self, stripe_id: str, state: str = "", *movements: FundsMovement, **more: Any) -> None:
        """Bring a dispute to a state, and move money for it."""
        before = self.disputes[stripe_id]
        target = DisputeState[state] if state else before.state
        self.disputes[stripe_id] = replace(before, state=target, movements=(*before.movements, *movements), **more)

    async def read_dispute(self, stripe_dispute_id: str) -> DisputeNews | None:
        """Return how it stands; the answer may take its time."""
        self.reads += 1
        self._fail(NeverLeft)
        found = self.disputes.get(stripe_dispute_id)
        await self._hold()
        return found

    async def read_warning(self, stripe_warning_id: str) -> WarningNews | None:
        """Return a report of fraud."""
        await self._hold()
        return self.warnings.get(stripe_warning_id)

    async def close_dispute(self, stripe_dispute_id: str, *, key: str) -> DisputeNews | OperationRefused:
        """Concede; a repeat under the same key changes nothing."""
        self._fail(NeverLeft)
        self.closed_with.append(key)
        if (
            self.disputes[stripe_dispute_id].state is not DisputeState.NEEDS_RESPONSE
            and self.closed_with.count(key) < 2
        ):
            return OperationRefused(code="dispute_already_closed")
        self.move(stripe_dispute_id, "LOST")
        self._fail(LostAnswer)
        found = self.disputes[stripe_dispute_id]
        await self._hold()
        return found

    async def create_refund(self, refund: Refund, intent_id: str) -> RefundResult:
        """Refund, unless the charge is disputed."""
        if self.before_refund is not None:
            await self.before_refund()
        disputed = any(
            one.payment_intent_id == intent_id
            and not one.is_inquiry
            and one.state not in (DisputeState.WON, DisputeState.LOST)
            for one in self.disputes.values()
        )
        state, reason = (RefundState.FAILED, "charge_disputed") if disputed else (RefundState.SUCCEEDED, "")
        result = RefundResult(stripe_refund_id=f"re_{refund.id}", state=state, failure_reason=reason)
        return self.refunds.setdefault(refund.id, result)

    async def find_refund(self, refund: Refund, intent_id: str) -> RefundResult | None:
        """Return the refund that carries our id."""
        return self.refunds.get(refund.id)

    async def _hold(self) -> None:
        if self.holds_answers is not None:
            await self.holds_answers()

    def _fail(self, kind: type[Exception]) -> None:
        if self.fails and isinstance(self.fails[0], kind):
            raise self.fails.pop(0)


class Ledger:
    """The ledger, which takes every refund."""

    async def reserve_refund(self, payment: Payment, refund: Refund, *, within_balance: bool = False) -> Booked:
        """Reserve."""
        return Booked(verdict="CREATED")


@dataclass(frozen=True)
class Desk:
    """What payments works with, on a database of its own."""

    deps: Deps
    issuer: Issuer
    renderer: Renderer

    async def paid(
        self, amount: int = 1000, *, top_up: bool = False, intent_id: str = "", captured: bool = True
    ) -> Payment:
        """Return a payment whose card was charged."""
        deps, owner = self.deps, CUSTOMER if top_up else MERCHANT
        payment, event = new_payment(
            deps,
            identifier=new_id("pay", clock=deps.clock, bucket=bucket_of(owner)),
            owner_id=owner,
            customer_id=CUSTOMER,
            amount=usd(amount),
            capture_method=CaptureMethod.AUTOMATIC,
            purpose=Purpose.TOP_UP if top_up else Purpose.SALE,
            top_up_id=new_id("top", clock=deps.clock, bucket=bucket_of(owner)) if top_up else "",
            payment_method_id=derive_id("pm", "card", bucket=3),
        )
        intent_id = intent_id or f"pi_{payment.id}"
        now = deps.clock.now()
        attempt = Attempt(
            id=new_id("att", clock=deps.clock, bucket=bucket_of(owner)), payment_id=payment.id, owner_id=owner,
            source=Source(stripe_payment_method_id="pm_1"), manner=Manner(), state=AttemptState.CREATED, charge_id="",
            prior_charge_id="", prior_uncharged=False, decline=None, next_action=NextAction(), create_time=now, update_time=now,
        )  # fmt: skip
        async with deps.db.uow() as uow:
            await store.insert_payment(uow.conn, payment)
            uow.outbox.append(deps.events.payment(event, payment))
            payment = deps.outcomes.walk(uow, payment, "send")
            store.insert_attempt(uow.conn, attempt)
            attempt = store.advance_attempt(uow.conn, attempt, "send", now=now)
            store.save_intent_id(uow.conn, payment, intent_id)
            if captured:
                charge = Charged(charge_id=f"ch_{payment.id}", amount=payment.amount)
                await deps.outcomes.charge(uow, replace(payment, latest_attempt=attempt), attempt, charge)
        return await self.payment(payment.id)

    async def payment(self, payment_id: str) -> Payment:
        """Return a payment as it is now."""
        async with self.deps.db.read() as conn:
            found = await store.payment(conn, payment_id)
        assert found is not None
        return found

    async def disputes(self, owner_id: str = MERCHANT) -> list[Dispute]:
        """Return all disputes, oldest first."""
        async with self.deps.db.read() as conn:
            found = await store.disputes(
                conn, owner_id, state="", stage="", payment_id="", time_from=None, time_to=None, before="~", limit=100
            )
        return found[::-1]

    async def refund(self, payment: Payment, amount: int | None = None, *, key: str = "") -> Refund:
        """Refund as the merchant."""
        command = CreateRefund(
            payment_id=payment.id, merchant_id=MERCHANT, amount=usd(amount) if amount is not None else None,
            reason="OTHER", metadata={},
        )  # fmt: skip
        ticket = self.ticket("refund", key, lambda refund: refund.id.encode())
        return await create_refund(self.deps, ticket, command)

    async def accept(self, dispute: Dispute, *, key: str = "", merchant_id: str = MERCHANT) -> Dispute:
        """Accept as the merchant."""
        ticket = self.ticket(
            "accept", key, lambda one: self.renderer.dispute(one).SerializeToString(deterministic=True)
        )
        return await accept_dispute(self.deps, ticket, dispute_id=dispute.id, merchant_id=merchant_id)

    def ticket(self, method: str, key: str, render: Callable[[Any], bytes]) -> IdempotentRequest:
        """Return a request under a key, a fresh one where none is given."""
        key = key or new_id("key", clock=self.deps.clock)
        return IdempotentRequest(tenant="t", method=method, key=key, fingerprint=b"f", render=render, money=True)

    async def told(self) -> list[str]:
        """Return the types of all events, in order."""
        async with self.deps.db.read() as conn:
            return list((await conn.execute(text("SELECT type FROM outbox ORDER BY position"))).scalars())

    def broken(self, *checks: Check) -> dict[str, list[str]]:
        """Return what the audit finds, by the title of each check that finds anything."""
        url = self.deps.db.engine.url.render_as_string(hide_password=False)
        engine = create_engine(url, poolclass=NullPool)
        try:
            with engine.connect() as conn:
                found = {
                    check.title: [str(row[0]) for row in conn.execute(text(check.broken))]
                    for check in checks or PAYMENTS
                }
        finally:
            engine.dispose()
        return {title: rows for title, rows in found.items() if rows}


async def open_desk(make_database: MakeDatabase) -> Desk:
    """Return a desk at which nothing has happened yet."""
    db, issuer = await make_database("payments"), Issuer()
    clock = db.clock
    secrets = ClientSecrets(base64.b64encode(bytes(32)).decode())
    renderer = Renderer(livemode=False, secrets=secrets, sealer=db.sealer)
    events = Events(renderer)
    saving, disputing = Saving(events, clock), Disputing(events, clock, FeePayer.MERCHANT)
    fee_plans = FeePlans(FeePlan(version="1", basis_points=150))
    outbound = Outbound(target="stripe", classify=classify, clock=clock, tries=1)
    deps = Deps(
        db=db,
        clock=clock,
        gateway=cast(Any, issuer),
        outbound=outbound,
        balance_outbound=outbound,
        ledger=cast(Any, Ledger()),
        ledger_outbound=outbound,
        events=events,
        fee_plans=fee_plans,
        outcomes=Outcomes(events, fee_plans, clock, saving, db.sealer, disputing),
        disputing=disputing,
        saving=saving,
        return_urls=ReturnUrls(platform_origins=(), loopback=True),
        throttle=cast(Any, None),
    )
    return Desk(deps, issuer, renderer)


def shuffled_answers(seed: int) -> Callable[[], Awaitable[object]]:
    """Return what holds each answer back for a few turns of the loop, not all for as many."""
    state = seed or 1

    async def hold() -> None:
        nonlocal state
        state = state * 48_271 % 2_147_483_647
        await asyncio.sleep(state % 7 / 1000)

    return hold
