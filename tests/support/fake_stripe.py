"""Stripe in memory, behind the gateway's port: it keeps money and keys as Stripe does, and misbehaves when told to.

Beside its objects it keeps who asked for what was done (`charges`, `captures`, `refunds`), and the events that tell of it (`news`).
What a card does stands in its id: `pm_ok…`, `pm_declined…`, `pm_action…`, `pm_slow…`, `pm_odd…` (another amount), `pm_rejected…`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import aiohttp
import stripe

from servers.kernel.clock import Clock
from servers.kernel.money import Money
from servers.payments.declines import decline_of
from servers.payments.domain import (
    ActionRequired,
    Attempt,
    Authorized,
    CaptureMethod,
    Card,
    CardDeclined,
    CardSaved,
    Charged,
    ChargeResult,
    Decline,
    IntentStatus,
    NotConfirmed,
    Operation,
    OperationRefused,
    OperationResult,
    Payment,
    Refund,
    RefundResult,
    RefundState,
    SetupIntent,
    SetupResult,
    StillProcessing,
    UsedCard,
)
from servers.payments.gateway_stripe import Attached, StripeGateway, WebhookEvent
from servers.payments.gateway_stripe.client import METHOD_REJECTED_RESULT
from servers.payments.gateway_stripe.shapes import to_stripe
from tests.support.weather import Forecast, Weather

CARD: Final = Card(brand="visa", last4="4242", exp_month=12, exp_year=2036, funding="credit", country="US")
REFUSED_STATE: Final = OperationRefused(code="payment_intent_unexpected_state")
KEYS_KEPT: Final = timedelta(hours=24)
HOLDS_LAST: Final = timedelta(days=7)
READS: Final = tuple(w for w in Weather if w not in (Weather.BROKE_AFTER, Weather.LOST, Weather.STRAY))
_GENERIC: Final = decline_of(code="card_declined", decline_code="generic_decline", advice_code="")
_NOT_AUTHENTICATED: Final = decline_of(code="payment_intent_authentication_failure", decline_code="", advice_code="")


class _Broke:
    """The answer under a key is a 500."""


def failure(weather: Weather) -> Exception:
    """Return what the SDK raises."""
    error: stripe.StripeError
    match weather:
        case Weather.REFUSED:
            error = stripe.APIConnectionError("refused")  # type: ignore[no-untyped-call]  # the SDK's own
            error.__cause__ = aiohttp.ConnectionTimeoutError("refused")
        case Weather.LIMITED:
            error = stripe.RateLimitError("slower", http_status=429, headers={"retry-after": "0"})
        case Weather.BROKE | Weather.BROKE_AFTER:
            error = stripe.APIError("broke", http_status=500)
        case _:
            error = stripe.APIConnectionError("no answer")  # type: ignore[no-untyped-call]  # the SDK's own
            error.__cause__ = aiohttp.ServerDisconnectedError()
    return error


@dataclass
class Intent:
    """A PaymentIntent."""

    id: str
    payment_id: str
    amount: Money
    manual: bool
    status: str = "requires_payment_method"
    received: int = 0
    capturable: int = 0
    charge_id: str = ""
    error: Decline | None = None
    error_charge_id: str = ""
    source: str = ""
    attempt_id: str = ""
    """Which confirm it carries out, or carried out last."""
    paid: int = 0
    """How often a card was charged, or its money held."""
    ends: datetime | None = None

    def money(self, minor: int) -> Money:
        """Return an amount in the intent's currency."""
        return replace(self.amount, amount_minor=minor)


@dataclass
class Made:
    """A refund at Stripe."""

    id: str
    refund_id: str
    """Ours."""
    intent_id: str
    amount: int
    state: RefundState


@dataclass
class FakeStripe(StripeGateway):
    """Stripe. `forecast` says how calls go."""

    clock: Clock
    forecast: Forecast = field(default_factory=Forecast)
    intents: dict[str, Intent] = field(default_factory=dict)
    charges: list[str] = field(default_factory=list)
    """The attempt of each charge that took money, or held it."""
    captures: list[tuple[str, int]] = field(default_factory=list)
    """(operation, amount) of each capture."""
    refunds: dict[str, Made] = field(default_factory=dict)
    """By Stripe's own id."""
    news: list[WebhookEvent] = field(default_factory=list)
    setups: dict[str, tuple[str, SetupResult]] = field(default_factory=dict)
    detached: set[str] = field(default_factory=set)
    sent: list[tuple[str, str]] = field(default_factory=list)
    """(verb, key) of every call that arrived."""
    useless: list[tuple[str, str]] = field(default_factory=list)
    """(verb, key) of calls under a key that a 500 was answered under."""
    livemode: bool = False
    _keys: dict[str, tuple[datetime, Any]] = field(default_factory=dict)

    def of(self, payment_id: str) -> list[Intent]:
        """Return a payment's intents: more than one only where Stripe forgot a key."""
        found = [intent for intent in self.intents.values() if intent.payment_id == payment_id]
        for intent in found:
            self._tick(intent)
        return found

    async def _keyed(self, verb: str, key: str, act: Callable[[], Any]) -> Any:
        is_new = True

        def work() -> Any:
            nonlocal is_new
            self.sent.append((verb, key))
            now = self.clock.now()
            since, kept = self._keys.get(key, (now, None))
            is_new = kept is None or now - since >= KEYS_KEPT
            if is_new:
                kept = act()
                self._keys[key] = (now, kept)
            if isinstance(kept, _Broke):
                if not self.forecast.is_stray:
                    self.useless.append((verb, key))
                raise failure(Weather.BROKE)
            return kept

        def fail(weather: Weather) -> Exception:
            # A key keeps its first answer, whatever later calls under it meet.
            if (weather is Weather.BROKE and key not in self._keys) or (weather is Weather.BROKE_AFTER and is_new):
                self._keys[key] = (self.clock.now(), _Broke())
            return failure(weather)

        return await self.forecast.over(work, fail)

    def _tell(self, kind: str, intent_id: str, *, object_id: str = "", **metadata: str) -> None:
        number, intent = len(self.news), self.intents[intent_id]
        event = WebhookEvent(
            id=f"evt_{number}",
            type=kind,
            object_id=object_id or intent_id,
            payment_intent_id=intent_id,
            metadata=metadata,
            created=self.clock.now(),
            received=intent.money(intent.received) if kind.startswith("payment_intent.") else None,
        )
        self.news.append(event)

    async def create_customer(self, owner_id: str, *, key: str) -> str:
        """Return the user's customer."""
        return f"cus_{owner_id}"

    async def attach(self, stripe_id: str, customer_id: str, *, key: str) -> Attached:
        """Attach a card."""
        attached: Attached = await self._keyed("attach", key, lambda: Attached(stripe_id=stripe_id, card=CARD))
        return attached

    async def detach(self, stripe_id: str) -> None:
        """Detach a card."""
        await self.forecast.over(lambda: self.detached.add(stripe_id), failure)

    async def create_intent(self, payment: Payment, customer_id: str, *, key: str) -> str | CardDeclined:
        """Create an intent."""

        def act() -> str:
            identifier = f"pi_{len(self.intents)}_{payment.id}"
            manual = payment.capture_method is CaptureMethod.MANUAL
            self.intents[identifier] = Intent(identifier, payment.id, payment.amount, manual)
            self._tell("payment_intent.created", identifier)
            return identifier

        made: str = await self._keyed("create_intent", key, act)
        return made

    async def confirm(self, intent_id: str, attempt: Attempt) -> ChargeResult:
        """Charge a card, or hold its money."""
        intent, card = self.intents[intent_id], attempt.source.stripe_payment_method_id

        def act() -> ChargeResult:
            self._tick(intent)
            confirmable = intent.status == "requires_payment_method"
            if not confirmable or card.startswith("pm_rejected") or card in self.detached:
                found = self._result(intent, attempt)
                return METHOD_REJECTED_RESULT if isinstance(found, NotConfirmed) else found
            intent.source, intent.attempt_id, intent.error = card, attempt.id, None
            if card.startswith("pm_action"):
                intent.status = "requires_action"
                self._tell("payment_intent.requires_action", intent.id)
            elif card.startswith("pm_slow"):
                intent.status = "processing"
                self._tell("payment_intent.processing", intent.id)
            else:
                self.settle(intent, succeed=not card.startswith("pm_declined"))
            return self._result(intent, None)

        answer: ChargeResult = await self._keyed("confirm", attempt.id, act)
        return answer

    def settle(self, intent: Intent, *, succeed: bool, authenticated: bool = True) -> None:
        """Have the issuer decide, or the cardholder fail to authenticate."""
        if not authenticated:
            intent.status, intent.error, intent.error_charge_id = "requires_payment_method", _NOT_AUTHENTICATED, ""
            self._tell("payment_intent.payment_failed", intent.id)
            return
        intent.charge_id = f"ch_{intent.id}_{len(self.sent)}"
        if not succeed:
            intent.status, intent.error = "requires_payment_method", _GENERIC
            intent.error_charge_id = intent.charge_id
            self._tell("payment_intent.payment_failed", intent.id)
            return
        self.charges.append(intent.attempt_id)
        intent.paid += 1
        took = intent.amount.amount_minor + intent.source.startswith("pm_odd")
        if intent.manual:
            intent.status, intent.capturable, intent.ends = "requires_capture", took, self.clock.now() + HOLDS_LAST
        else:
            intent.status, intent.received = "succeeded", took
        self._tell(
            "payment_intent.amount_capturable_updated" if intent.manual else "payment_intent.succeeded", intent.id
        )

    def _tick(self, intent: Intent) -> None:
        if intent.status == "requires_capture" and intent.ends is not None and self.clock.now() >= intent.ends:
            intent.status, intent.capturable = ("succeeded" if intent.received else "canceled"), 0
            self._tell(f"payment_intent.{intent.status}", intent.id)

    def _result(self, intent: Intent, attempt: Attempt | None) -> ChargeResult:
        used = UsedCard(stripe_id=intent.source, card=CARD)
        match intent.status:
            case "requires_capture":
                return Authorized(
                    charge_id=intent.charge_id,
                    amount=intent.money(intent.capturable),
                    multicapture=True,
                    capture_before_time=intent.ends,
                    used=used,
                )
            case "succeeded":
                return Charged(charge_id=intent.charge_id, amount=intent.money(intent.received), used=used)
            case "requires_action":
                return ActionRequired(client_secret=f"{intent.id}_secret")
            case "processing":
                return StillProcessing()
        charge_id = intent.error_charge_id
        if intent.error is not None and (attempt is None or not attempt.may_be_earlier(charge_id)):
            return CardDeclined(charge_id=charge_id, decline=intent.error)
        return NotConfirmed()

    async def read_intent(self, intent_id: str, attempt: Attempt) -> ChargeResult:
        """Say how an intent stands, as it stood when the question came."""
        intent = self.intents[intent_id]

        def act() -> ChargeResult:
            self._tick(intent)
            return self._result(intent, attempt)

        return await self.forecast.over(act, failure, READS)

    async def intent_status(self, intent_id: str) -> IntentStatus:
        """Say how an intent stands as a whole."""
        return await self.forecast.over(lambda: self._status(self.intents[intent_id]), failure, READS)

    def _status(self, intent: Intent) -> IntentStatus:
        self._tick(intent)
        return IntentStatus(status=intent.status, received=intent.money(intent.received))

    async def capture(
        self, intent_id: str, operation: Operation, currency: str, *, multicapture: bool
    ) -> OperationResult:
        """Take money that is held."""
        intent = self.intents[intent_id]

        def act() -> OperationResult:
            self._tick(intent)
            if intent.status != "requires_capture":
                return REFUSED_STATE
            if operation.amount_minor > intent.capturable:
                return OperationRefused(code="amount_too_large")
            intent.received += operation.amount_minor
            intent.capturable -= operation.amount_minor
            if operation.final or not multicapture or not intent.capturable:
                intent.status, intent.capturable = "succeeded", 0
                self._tell("payment_intent.succeeded", intent.id)
            self.captures.append((operation.id, operation.amount_minor))
            return self._status(intent)

        answer: OperationResult = await self._keyed("capture", operation.id, act)
        return answer

    async def cancel(self, intent_id: str, operation: Operation) -> OperationResult:
        """Let an intent go."""
        intent = self.intents[intent_id]

        def act() -> OperationResult:
            self._tick(intent)
            if intent.status not in ("requires_payment_method", "requires_action", "requires_capture"):
                return REFUSED_STATE
            intent.status, intent.capturable = "canceled", 0
            self._tell("payment_intent.canceled", intent.id)
            return self._status(intent)

        answer: OperationResult = await self._keyed("cancel", operation.id, act)
        return answer

    async def create_refund(self, refund: Refund, intent_id: str) -> RefundResult:
        """Give money back: odd amounts take the bank a while."""
        intent, amount = self.intents[intent_id], refund.amount.amount_minor

        def act() -> RefundResult:
            gone = (RefundState.FAILED, RefundState.CANCELED)
            given = sum(
                made.amount for made in self.refunds.values() if made.intent_id == intent_id and made.state not in gone
            )
            if given + amount > intent.received:
                return RefundResult(
                    stripe_refund_id="", state=RefundState.FAILED, failure_reason="charge_already_refunded"
                )
            state = RefundState.PENDING if amount % 2 else RefundState.SUCCEEDED
            made = Made(f"re_{len(self.refunds)}_{refund.id}", refund.id, intent_id, amount, state)
            self.refunds[made.id] = made
            self._tell("refund.created", intent_id, object_id=made.id, paymesh_refund_id=refund.id)
            return _refund_of(made)

        answer: RefundResult = await self._keyed("refund", refund.id, act)
        return answer

    def has_made(self, refund_id: str) -> bool:
        """Tell whether a refund carries our id."""
        return any(made.refund_id == refund_id for made in self.refunds.values())

    def made(self, refund_id: str) -> Made:
        """Return the one refund that carries our id."""
        (found,) = (made for made in self.refunds.values() if made.refund_id == refund_id)
        return found

    def end_refund(self, made: Made, state: RefundState) -> None:
        """Have the bank take a refund, or send its money back."""
        made.state = state
        self._tell("refund.updated", made.intent_id, object_id=made.id, paymesh_refund_id=made.refund_id)

    async def cancel_refund(self, refund: Refund) -> RefundResult:
        """Cancel a refund that waits for its customer; any other stays as it is."""

        def act() -> RefundResult:
            made = self.made(refund.id)
            if made.state is RefundState.REQUIRES_ACTION:
                made.state = RefundState.CANCELED
            return _refund_of(made)

        answer: RefundResult = await self._keyed("cancel_refund", f"{refund.id}-cancel", act)
        return answer

    async def find_refund(self, refund: Refund, intent_id: str) -> RefundResult | None:
        """Find a refund by our id."""

        def act() -> RefundResult | None:
            return next((_refund_of(made) for made in self.refunds.values() if made.refund_id == refund.id), None)

        return await self.forecast.over(act, failure, READS)

    async def set_up(self, setup: SetupIntent, customer_id: str) -> tuple[str, SetupResult]:
        """Save a card."""
        card = setup.stripe_payment_method_id

        def act() -> tuple[str, SetupResult]:
            result: SetupResult = CardSaved(used=UsedCard(stripe_id=card, card=CARD))
            if card.startswith("pm_declined"):
                result = CardDeclined(charge_id="", decline=_GENERIC)
            if card.startswith("pm_action"):
                result = ActionRequired(client_secret=f"seti_{setup.confirm_key}_secret")
            self.setups[setup.confirm_key] = (f"seti_{setup.confirm_key}", result)
            return self.setups[setup.confirm_key]

        answer: tuple[str, SetupResult] = await self._keyed("set_up", setup.confirm_key, act)
        return answer

    async def read_setup(self, setup: SetupIntent, customer_id: str) -> tuple[str, SetupResult]:
        """Say how a confirm of a setup intent stands."""
        return await self.forecast.over(
            lambda: self.setups.get(setup.confirm_key, ("", NotConfirmed())), failure, READS
        )


def _refund_of(made: Made) -> RefundResult:
    return RefundResult(stripe_refund_id=made.id, state=made.state, failure_reason="")


def body_of(event: WebhookEvent) -> bytes:
    """Return an event as Stripe sends it."""
    subject: dict[str, Any] = {
        "id": event.object_id,
        "payment_intent": event.payment_intent_id,
        "metadata": event.metadata,
    }
    if event.received is not None:
        received = {"amount_received": to_stripe(event.received), "currency": event.received.currency.lower()}
        subject |= {"object": "payment_intent", **received}
    told = {"id": event.id, "type": event.type, "created": int(event.created.timestamp()), "data": {"object": subject}}
    return json.dumps(told).encode()
