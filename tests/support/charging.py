"""Payments as wallets sees it: charges a card for a top-up once, whatever is repeated, and loses answers when told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
import pytest
from paymesh.payments.v1 import payments_events_pb2, payments_pb2

from servers.kernel.clock import SystemClock
from servers.kernel.errors import Refusal
from servers.kernel.ids import bucket_of, derive_id, new_id
from servers.kernel.money import Money
from servers.runtime.db import Database
from servers.runtime.eventlog import Delivered, EventRecord
from servers.runtime.grpc_errors import refusal_of, status_of
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Outbound
from servers.runtime.render import money, stamp
from servers.wallets.consumer import handlers
from servers.wallets.outcomes import Outcomes
from servers.wallets.peers import PEER, classify
from servers.wallets.render_wallets import parse_news, render_top_up
from servers.wallets.resources import News, TopUp, Wallet
from servers.wallets.usecases import CreateTopUp, Deps, create_top_up, create_wallet
from tests.support.ledger import TwoWriters

CLOCK = SystemClock()
CARD = derive_id("pm", "card", bucket=0)
P = payments_pb2.Payment


def lost_answer(code: grpc.StatusCode = grpc.StatusCode.DEADLINE_EXCEEDED) -> grpc.aio.AioRpcError:
    """Return what a call without an answer raises."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def told_on(refusal: Refusal) -> Refusal:
    """Return a refusal as it arrives from another server."""
    told = refusal_of(status_of(refusal))
    assert told is not None
    return told


@dataclass
class FakePayments:
    """Answers with `state` for a new payment; `refuses` comes before anything is done, `loses` after it."""

    state: int = P.SUCCEEDED
    refuses: Exception | None = None
    loses: Exception | None = None
    payments: dict[str, payments_pb2.Payment] = field(default_factory=dict)
    calls: list[tuple[str, bool]] = field(default_factory=list)

    async def charge(self, top_up: TopUp, *, stop: bool) -> News:
        """Charge once; with `stop`, cancel what never was."""
        self.calls.append((top_up.id, stop))
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        if top_up.id not in self.payments:
            self.payments[top_up.id] = self._new(top_up)
            self.move(top_up.id, P.CANCELED if stop else self.state)
        if self.loses is not None:
            raise self.loses
        return parse_news(self.payments[top_up.id])

    async def rehearse(self, top_up: TopUp) -> None:
        """Refuse what a charge would be refused for."""
        if self.refuses is not None:
            raise self.refuses

    def _new(self, top_up: TopUp) -> payments_pb2.Payment:
        payment_id = derive_id("pay", top_up.id, bucket=bucket_of(top_up.owner_id))
        return P(
            id=payment_id, resource_version=1, customer_id=top_up.owner_id, amount=money(top_up.amount),
            purpose=P.TOP_UP, top_up_id=top_up.id, certainty=payments_pb2.CERTAIN, state=P.REQUIRES_CONFIRMATION,
        )  # fmt: skip

    def move(self, top_up_id: str, state: int, *, decline: str = "") -> None:
        """Bring a payment to a state."""
        payment = self.payments[top_up_id]
        payment.resource_version += 1
        payment.state = state  # type: ignore[assignment]  # an int of the enum
        payment.ClearField("next_action")
        if state == P.REQUIRES_ACTION:
            payment.next_action.type = payments_pb2.NextAction.STRIPE_SDK
            payment.next_action.stripe_client_secret = "pi_1_secret_2"
            payment.next_action.stripe_publishable_key = "pk_test_1"
        if state == P.SUCCEEDED:
            capture = payment.captures.add(id=derive_id("cap", payment.id, bucket=bucket_of(payment.customer_id)))
            capture.amount.CopyFrom(payment.amount)
            capture.capture_time.CopyFrom(stamp(datetime(2026, 1, 1, tzinfo=UTC)))
        if decline:
            payment.latest_attempt.decline.code = decline
            payment.latest_attempt.decline.recommended_action = payments_pb2.Decline.USE_ANOTHER_CARD

    def event(self, top_up_id: str, kind: str) -> Delivered:
        """Return the event of a payment's present version; it tells no secret."""
        payment = P()
        payment.CopyFrom(self.payments[top_up_id])
        payment.next_action.stripe_client_secret = ""
        if payment.state != P.REQUIRES_ACTION:
            payment.ClearField("next_action")
        event = payments_events_pb2.PaymentEvent(
            event_id=new_id("evt", clock=CLOCK), type=kind, subject=payment.id, version=payment.resource_version,
            payment=payment, customer_id=payment.customer_id,
        )  # fmt: skip
        record = EventRecord(
            topic="paymesh.payments.v1", key=payment.id, event_id=event.event_id, type=kind, source="paymesh/payments",
            subject=payment.id, version=event.version, occur_time=CLOCK.now(), traceparent="",
            data=event.SerializeToString(),
        )  # fmt: skip
        return Delivered(record=record, partition=0, offset=0, generation=1)


@dataclass(frozen=True)
class Till:
    """A user's wallet, and payments that charges for it."""

    ledger: TwoWriters
    deps: Deps
    payments: FakePayments
    wallet: Wallet

    @property
    def db(self) -> Database:
        """The wallets' database."""
        return self.deps.db

    async def top_up(self, key: str, amount: int = 500, *, currency: str = "USD", owner_id: str = "") -> TopUp:
        """Top up under a key."""
        command = CreateTopUp(
            owner_id=owner_id or self.wallet.owner_id,
            wallet_id=self.wallet.id,
            amount=Money(amount_minor=amount, currency=currency),
            payment_method_id=CARD,
            return_url="",
        )
        return await create_top_up(self.deps, ticket(key), command)

    async def hear(self, delivered: Delivered) -> None:
        """Consume an event of payments."""
        async with self.db.uow() as uow:
            await handlers(self.ledger.writers[1], self.deps)[delivered.record.type](uow, delivered)


def ticket(key: str) -> IdempotentRequest:
    """Return the request of one top-up; its answer is stored sealed."""
    return IdempotentRequest(
        tenant="t", method="m", key=key, fingerprint=b"f", secret=True, money=True,
        render=lambda top_up: render_top_up(top_up).SerializeToString(deterministic=True),
    )  # fmt: skip


def wallet_ticket(key: str | None = None) -> IdempotentRequest:
    """Return the request of a new wallet."""
    return IdempotentRequest(
        tenant="t", method="w", key=key, fingerprint=b"f", render=lambda wallet: wallet.id.encode()
    )


@pytest.fixture
async def till(two_writers: TwoWriters) -> Till:
    """Return a till with an empty wallet in dollars."""
    payments, db = FakePayments(), two_writers.db
    deps = Deps(
        db=db,
        clock=db.clock,
        payments=payments,
        outbound=Outbound(target=PEER, classify=classify, clock=db.clock, tries=1),
        outcomes=Outcomes(two_writers.writers[0], db.sealer, db.clock),
    )
    owner = new_id("usr", clock=CLOCK)
    wallet = await create_wallet(deps, wallet_ticket(), owner_id=owner, currency="USD")
    return Till(two_writers, deps, payments, wallet)
