"""The use cases of payments on real Postgres, with fakes at the two ports only, and a caller who keeps its keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from google.protobuf.message import Message
from sqlalchemy import text

from servers.kernel.clock import ManualClock, SystemClock
from servers.kernel.errors import Refusal
from servers.kernel.ids import new_id
from servers.kernel.money import Money
from servers.payments import peers, store
from servers.payments.client_secrets import ClientSecrets
from servers.payments.disputing import Disputing
from servers.payments.domain import (
    CaptureMethod,
    FeePayer,
    FeePlan,
    Manner,
    Payment,
    PaymentMethod,
    Refund,
    SetupIntent,
    Source,
    Usage,
)
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.gateway_stripe import classify
from servers.payments.outcomes import Outcomes
from servers.payments.peers import Wallet
from servers.payments.render import Renderer, mandate_message, refund_message, settings_message
from servers.payments.resolvers import resolvers
from servers.payments.return_urls import ReturnUrls
from servers.payments.saving import Saving
from servers.payments.usecases import (
    CapturePayment,
    ConfirmPayment,
    CreatePayment,
    CreateRefund,
    Deps,
    Payer,
    cancel_payment,
    capture_payment,
    confirm_payment,
    confirm_setup,
    create_payment,
    create_payment_method,
    create_refund,
)
from servers.runtime.db import Database
from servers.runtime.grpc_errors import status_bytes
from servers.runtime.idempotency import IdempotentRequest, Replayed
from servers.runtime.janitor import Janitor
from servers.runtime.outbound import Outbound
from servers.runtime.throttle import Throttle
from tests.support import fake_ledger, fake_stripe
from tests.support.fake_ledger import FakeLedger
from tests.support.fake_stripe import FakeStripe
from tests.support.weather import Died, Weather

_IDS: Final = SystemClock()
USER, MERCHANT = new_id("usr", clock=_IDS), new_id("mer", clock=_IDS)
WALLET: Final = Wallet(id=new_id("wal", clock=_IDS), customer_id=USER, currency="USD")
FEES: Final = FeePlan(version="2026-11", basis_points=150, fixed_minor={"USD": 25})


class TickingClock(ManualClock):
    """Moved by hand, and a millisecond with each look: no two things happen at once. Its other hand goes along, so that a pause
    of the circuit breaker is over when business time says so."""

    def __init__(self) -> None:
        super().__init__(datetime(2026, 11, 1, tzinfo=UTC))

    def now(self) -> datetime:
        """Return an instant after all before."""
        self.advance(timedelta(milliseconds=1))
        return super().now()

    def monotonic(self) -> float:
        """Return business time in seconds."""
        return super().now().timestamp()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller was told: bytes that stay, or None where asking again may help."""

    body: bytes | None
    is_refusal: bool = False
    reason: str = ""
    is_replayed: bool = False


def usd(amount: int) -> Money:
    """Return cents."""
    return Money(amount_minor=amount, currency="USD")


def renderer_of(db: Database) -> Renderer:
    """Return what renders for one deployment."""
    secrets = ClientSecrets(base64.b64encode(bytes(32)).decode())
    return Renderer(livemode=False, secrets=secrets, sealer=db.sealer, stripe_publishable_key="pk_test_1")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """One process of the payments server, without its transport."""

    deps: Deps
    stripe: FakeStripe
    ledger: FakeLedger
    renderer: Renderer

    @property
    def deaths(self) -> int:
        """How often the process died after a call was carried out."""
        return self.stripe.forecast.deaths + self.ledger.forecast.deaths

    @property
    def db(self) -> Database:
        """The payments' database."""
        return self.deps.db

    def ticket(self, key: str, *said: object, method: str = "m", secret: bool = False) -> IdempotentRequest:
        """Return the request of a call under a key; `said` is its body."""
        digest = hashlib.sha256(repr(said).encode()).digest()
        return IdempotentRequest(
            tenant="t", method=method, key=key, fingerprint=digest, secret=secret, money=True,
            render=lambda value: self.message(value).SerializeToString(deterministic=True),
        )  # fmt: skip

    def message(self, value: Any) -> Message:
        """Return what a use case returned as its message."""
        match value:
            case Payment():
                return self.renderer.payment(value)
            case Refund():
                return refund_message(value)
            case SetupIntent():
                return self.renderer.setup(value)
            case PaymentMethod():
                return self.renderer.method(value)
        return mandate_message(value) if hasattr(value, "revoke_time") else settings_message(value)

    async def told(self, request: IdempotentRequest, call: Awaitable[Any]) -> Answer:
        """Return what the caller of a use case is told, as the interceptor tells it; a dead process leaves its lease behind."""
        try:
            return Answer(request.render(await call))
        except Replayed as replayed:
            return Answer(replayed.answer, replayed.refused, is_replayed=True)
        except Refusal as refusal:
            if refusal.stored:
                return Answer(status_bytes(refusal), is_refusal=True, reason=refusal.reason)
            async with self.db.uow() as uow:
                uow.idempotency.release(request)
            return Answer(None, is_refusal=True, reason=refusal.reason)
        except Died:
            await self.bury(request)
            return Answer(None, reason="DIED")

    async def bury(self, request: IdempotentRequest) -> None:
        """End the lease of a call whose process died."""
        async with self.db.uow() as uow:
            await uow.conn.execute(
                text(
                    "UPDATE idempotency_keys SET lease_until = clock_timestamp() - interval '1 second' WHERE key = :key"
                ),
                {"key": request.key},
            )

    async def save_card(self, stripe_id: str, *, owner_id: str = USER) -> PaymentMethod:
        """Save a card of a user."""
        request = self.ticket(f"{owner_id}-{stripe_id}", method="save")
        return await create_payment_method(self.deps, request, owner_id, stripe_id)

    def create(
        self, key: str, *, manual: bool, customer_id: str = USER, amount: int = 1000, **more: Any
    ) -> Awaitable[Payment]:
        """Create a payment."""
        command = CreatePayment(**{
            "merchant_id": MERCHANT, "customer_id": customer_id, "amount": usd(amount),
            "capture_method": CaptureMethod.MANUAL if manual else CaptureMethod.AUTOMATIC,
            "payment_method_id": "", "confirm": False, "manner": Manner(), "statement_descriptor_suffix": "",
            "description": "", "metadata": {}, **more,
        })  # fmt: skip
        return create_payment(self.deps, self.ticket(key, command, method="create"), command)

    def confirm(
        self, request: IdempotentRequest, payment: Payment, source: Source, save: Usage = Usage.NONE
    ) -> Awaitable[Payment]:
        """Confirm as who pays."""
        payer = Payer(customer_id=USER, limit_key=payment.id)
        if not payment.customer_id:
            payer = Payer(merchant_id=MERCHANT, shopper=True, has_secret=True, limit_key=payment.id)
        command = ConfirmPayment(payment_id=payment.id, payer=payer, source=source, manner=Manner(save_for=save))
        return confirm_payment(self.deps, request, command)

    def capture(
        self, request: IdempotentRequest, payment: Payment, amount: int | None, *, final: bool = False
    ) -> Awaitable[Payment]:
        """Capture as the merchant."""
        money = usd(amount) if amount is not None else None
        command = CapturePayment(payment_id=payment.id, merchant_id=MERCHANT, amount=money, final=final)
        return capture_payment(self.deps, request, command)

    def cancel(self, request: IdempotentRequest, payment: Payment) -> Awaitable[Payment]:
        """Cancel as the merchant."""
        reason = "REQUESTED_BY_CUSTOMER"
        return cancel_payment(self.deps, request, payment_id=payment.id, merchant_id=MERCHANT, reason=reason)

    def refund(self, request: IdempotentRequest, payment: Payment, amount: int | None) -> Awaitable[Refund]:
        """Refund as the merchant."""
        money = usd(amount) if amount is not None else None
        command = CreateRefund(
            payment_id=payment.id, merchant_id=MERCHANT, amount=money, reason="CUSTOMER_REQUEST", metadata={}
        )
        return create_refund(self.deps, request, command)

    def weather(self, *weather: Weather) -> None:
        """Say how the next calls go, at both ports."""
        self.stripe.forecast.be(*weather)
        self.ledger.forecast.be(*weather)

    async def unreachable(self) -> None:
        """Let calls fail until both circuit breakers are open: nothing is sent until their pause is over."""

        async def lost(error: Exception) -> None:
            raise error

        for _ in range(5):
            await self.deps.outbound.execute("test", partial(lost, fake_stripe.failure(Weather.DROPPED)))
            await self.deps.ledger_outbound.execute("test", partial(lost, fake_ledger.failure(Weather.DROPPED)))

    def reachable(self) -> None:
        """Wait for the end of the breakers' pause."""
        self.wait(timedelta(seconds=6))

    def wait(self, time: timedelta) -> None:
        """Let business time pass."""
        clock = self.deps.clock
        assert isinstance(clock, ManualClock)
        clock.advance(time)

    async def janitor(self, *, after_hours: float = 0.1) -> None:
        """Let time pass and the janitor look at what is due."""
        self.wait(timedelta(hours=after_hours))
        await Janitor(self.db, resolvers(self.deps)).round()

    async def payment(self, payment_id: str) -> Payment:
        """Return a payment as it is."""
        async with self.db.read() as conn:
            found = await store.payment(conn, payment_id)
        assert found is not None
        return found

    def confirm_setup(
        self, request: IdempotentRequest, setup: SetupIntent, stripe_id: str = "pm_ok"
    ) -> Awaitable[SetupIntent]:
        """Confirm a setup intent as its user."""
        payer = Payer(customer_id=USER, limit_key=setup.id)
        return confirm_setup(
            self.deps, request, setup_id=setup.id, payer=payer, stripe_method_id=stripe_id, manner=Manner()
        )

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        """Return rows."""
        async with self.db.read() as conn:
            return list((await conn.execute(text(statement), values)).all())


def desk_of(db: Database, stripe: FakeStripe, ledger: FakeLedger, redis_url: str) -> Desk:
    """Put a process together as `main.py` does. Two of them may share a database and the outside."""
    renderer, clock = renderer_of(db), db.clock
    events = Events(renderer)
    saving, disputing = Saving(events, clock), Disputing(events, clock, FeePayer.MERCHANT)
    fee_plans = FeePlans(FEES)
    deps = Deps(
        db=db,
        clock=clock,
        gateway=stripe,
        outbound=Outbound(target="stripe", classify=classify, clock=clock, wait_seconds=0),
        ledger=ledger,
        balance_outbound=Outbound(target="stripe_balance", classify=classify, clock=clock, wait_seconds=0),
        ledger_outbound=Outbound(target="wallets", classify=peers.classify, clock=clock, tries=1),
        events=events,
        fee_plans=fee_plans,
        throttle=Throttle(redis_url, clock),
        saving=saving,
        outcomes=Outcomes(events, fee_plans, clock, saving, db.sealer, disputing),
        disputing=disputing,
        return_urls=ReturnUrls(),
    )
    return Desk(deps=deps, stripe=stripe, ledger=ledger, renderer=renderer)


async def rendered(call: Callable[[], Awaitable[Any]]) -> str:
    """Return "ok", or the reason of a refusal: what a race's loser is told."""
    try:
        await call()
    except Refusal as refusal:
        return refusal.reason
    return "ok"
