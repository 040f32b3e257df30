"""The only place that knows Stripe: its verbs, its shapes, its amounts, its errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import stripe

from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments.declines import decline_of
from servers.payments.domain import (
    ActionRequired,
    Authorized,
    CaptureMethod,
    Card,
    CardDeclined,
    Charged,
    ChargeResult,
    IntentStatus,
    NotConfirmed,
    Operation,
    OperationRefused,
    OperationResult,
    Payment,
    PaymentMethodRejected,
    Refund,
    RefundResult,
    RefundState,
    StillProcessing,
)
from servers.runtime.outbound import Failure

API_VERSION: Final = "2026-08-26.dahlia"
TIMEOUT_SECONDS: Final = 6.0
# Without decimals in ISO 4217, but counted in hundredths by Stripe's API (Stripe, "Special cases for currencies").
_HUNDREDFOLD: Final = frozenset({"ISK", "UGX"})
_REASONS: Final = {"DUPLICATE": "duplicate", "FRAUDULENT": "fraudulent"}
_CANCELLATIONS: Final = {
    "DUPLICATE_PAYMENT": "duplicate",
    "FRAUDULENT_PAYMENT": "fraudulent",
    "ABANDONED": "abandoned",
}
_REFUND_STATES: Final = {
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.CANCELED,
    "pending": RefundState.PENDING,
    "requires_action": RefundState.PENDING,
}


class SignatureInvalid(Exception):
    """A webhook that Stripe did not sign, or not lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """What the worker needs of an event: which object to read."""

    id: str
    type: str
    object_id: str
    payment_intent_id: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A payment method that belongs to its customer at Stripe now."""

    stripe_id: str
    card: Card


def classify(error: Exception) -> tuple[Failure, float | None] | None:
    """Say what an exception of the SDK means for the call. None: Stripe answered, or it is our bug."""
    if isinstance(error, stripe.RateLimitError):
        return Failure.RATE_LIMITED, _retry_after(error)
    if isinstance(error, stripe.APIConnectionError):
        never_out = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        return (Failure.NOT_SENT if never_out else Failure.UNKNOWN), None
    if isinstance(error, stripe.StripeError):
        if error.http_status == 409 and _code(error) == "idempotency_key_in_use":
            return Failure.UNKNOWN, 1.0
        if error.http_status is not None and error.http_status >= 500:
            return Failure.ANSWERED_5XX, None
    return None


def _code(error: stripe.StripeError) -> str:
    # The SDK leaves `code` empty on some of its classes, although Stripe sent one.
    body = error.json_body["error"] if isinstance(error.json_body, dict) else {}
    return str(error.code or body.get("code") or "")


def _retry_after(error: stripe.StripeError) -> float | None:
    value = (error.headers or {}).get("retry-after", "")
    return float(value) if value.isdigit() else None


class StripeGateway:
    """Stripe, as the use cases see it. Every call may raise what `classify` knows."""

    def __init__(self, api_key: str, *, api_base: str, webhook_secrets: Sequence[str]) -> None:
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base} if api_base else {},
            stripe_version=API_VERSION,
            # Retries are ours: the SDK would not know which ones are safe.
            max_network_retries=0,
            http_client=stripe.HTTPXClient(timeout=TIMEOUT_SECONDS, allow_sync_methods=False),
        )
        self._webhook_secrets = tuple(webhook_secrets)
        self.livemode = api_key.startswith(("sk_live_", "rk_live_"))

    async def create_customer(self, owner_id: str) -> str:
        """Return the Stripe customer of a user: the same for every try, because the key is the user's id."""
        customer = await self._client.v1.customers.create_async(
            {"metadata": {"paymesh_user_id": owner_id}}, {"idempotency_key": f"customer-{owner_id}"}
        )
        return customer.id

    async def attach(self, stripe_id: str, customer_id: str, *, key: str) -> Attached:
        """Attach a payment method to a customer. Raises PaymentMethodRejected where Stripe refuses."""
        try:
            method = await self._client.v1.payment_methods.attach_async(
                stripe_id, {"customer": customer_id}, {"idempotency_key": key}
            )
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            raise PaymentMethodRejected(error.code or "rejected") from error
        card = method.card
        if card is None:
            raise PaymentMethodRejected("not_a_card")
        return Attached(
            stripe_id=method.id,
            card=Card(
                brand=card.brand,
                last4=card.last4 or "",
                exp_month=card.exp_month,
                exp_year=card.exp_year,
                funding=card.funding,
                country=card.country or "",
            ),
        )

    async def create_intent(self, payment: Payment, customer_id: str) -> str:
        """Create the payment's one PaymentIntent, unconfirmed, and return its id."""
        manual = payment.capture_method is CaptureMethod.MANUAL
        params: Any = {
            "amount": _to_stripe(payment.amount),
            "currency": payment.amount.currency.lower(),
            "customer": customer_id,
            "payment_method_types": ["card"],
            "capture_method": "manual" if manual else "automatic",
            "metadata": {"paymesh_payment_id": payment.id, "paymesh_merchant_id": payment.merchant_id},
        }
        if manual:
            params["payment_method_options"] = {"card": {"request_multicapture": "if_available"}}
        intent = await self._client.v1.payment_intents.create_async(params, {"idempotency_key": payment.id})
        return intent.id

    async def confirm(self, intent_id: str, stripe_payment_method_id: str, *, key: str) -> ChargeResult:
        """Confirm the intent under the attempt's key."""
        try:
            intent = await self._client.v1.payment_intents.confirm_async(
                intent_id,
                {"payment_method": stripe_payment_method_id, "expand": ["latest_charge"]},
                {"idempotency_key": key},
            )
        except stripe.CardError as error:
            return _declined(error)
        return _result(intent, prior_charge_id="")

    async def read_intent(self, intent_id: str, *, prior_charge_id: str) -> ChargeResult:
        """Return how the intent stands now; `prior_charge_id` is the charge of the attempt before the one asked about."""
        intent = await self._client.v1.payment_intents.retrieve_async(intent_id, {"expand": ["latest_charge"]})
        return _result(intent, prior_charge_id=prior_charge_id)

    async def capture(
        self, intent_id: str, operation: Operation, currency: str, *, multicapture: bool
    ) -> OperationResult:
        """Capture under the operation's own id."""
        params: Any = {"amount_to_capture": _to_stripe(Money(amount_minor=operation.amount_minor, currency=currency))}
        if multicapture:
            params["final_capture"] = operation.final
        try:
            intent = await self._client.v1.payment_intents.capture_async(
                intent_id, params, {"idempotency_key": operation.id}
            )
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            return OperationRefused(code=_code(error) or "refused")
        return _status(intent)

    async def cancel(self, intent_id: str, operation: Operation) -> OperationResult:
        """Cancel under the operation's own id."""
        params: Any = {"cancellation_reason": _CANCELLATIONS.get(operation.reason, "requested_by_customer")}
        try:
            intent = await self._client.v1.payment_intents.cancel_async(
                intent_id, params, {"idempotency_key": operation.id}
            )
        except stripe.InvalidRequestError as error:
            return OperationRefused(code=_code(error) or "refused")
        return _status(intent)

    async def intent_status(self, intent_id: str) -> IntentStatus:
        """Return how the intent stands as a whole."""
        return _status(await self._client.v1.payment_intents.retrieve_async(intent_id))

    async def detach(self, stripe_id: str) -> None:
        """Detach a payment method; one that is detached or gone is fine."""
        try:
            await self._client.v1.payment_methods.detach_async(stripe_id)
        except stripe.InvalidRequestError:
            return  # Stripe's answer for one that belongs to nobody: what we want

    async def create_refund(self, refund: Refund, intent_id: str) -> RefundResult:
        """Refund under the refund's own id."""
        params: Any = {
            "payment_intent": intent_id,
            "amount": _to_stripe(refund.amount),
            "reason": _REASONS.get(refund.reason, "requested_by_customer"),
            "metadata": {"paymesh_refund_id": refund.id},
        }
        try:
            made = await self._client.v1.refunds.create_async(params, {"idempotency_key": refund.id})
        except stripe.InvalidRequestError as error:
            return RefundResult(stripe_refund_id="", state=RefundState.FAILED, failure_reason=error.code or "refused")
        return _refund_result(made)

    async def find_refund(self, refund: Refund, intent_id: str) -> RefundResult | None:
        """Return Stripe's refund that carries our id, or None where Stripe has none."""
        page = await self._client.v1.refunds.list_async({"payment_intent": intent_id, "limit": 100})
        async for found in page.auto_paging_iter():
            if found.metadata is not None and found.metadata.to_dict().get("paymesh_refund_id") == refund.id:
                return _refund_result(found)
        return None

    def verify_webhook(self, body: bytes, signature: str) -> WebhookEvent:
        """Check the signature on the raw bytes, with each live secret. Raises SignatureInvalid."""
        for secret in self._webhook_secrets:
            try:
                self._client.construct_event(body.decode(), signature, secret)
            except (stripe.SignatureVerificationError, ValueError):
                continue
            # Read from the verified bytes: the SDK's objects hide which keys an event's object has.
            event: dict[str, Any] = json.loads(body)
            subject: dict[str, Any] = event["data"]["object"]
            is_intent = subject.get("object") == "payment_intent"
            return WebhookEvent(
                id=event["id"],
                type=event["type"],
                object_id=subject.get("id", ""),
                payment_intent_id=(subject["id"] if is_intent else subject.get("payment_intent")) or "",
                metadata=dict(subject.get("metadata") or {}),
            )
        raise SignatureInvalid


def _status(intent: stripe.PaymentIntent) -> IntentStatus:
    return IntentStatus(
        status=intent.status,
        received=_from_stripe(intent.amount_received, intent.currency),
        cancellation_reason=intent.cancellation_reason or "",
    )


def _authorized(intent: stripe.PaymentIntent, charge_id: str) -> Authorized:
    charge = intent.latest_charge
    details = charge.payment_method_details if isinstance(charge, stripe.Charge) else None
    card = details.card if details is not None else None
    multicapture = getattr(card, "multicapture", None)
    before = getattr(card, "capture_before", None)
    return Authorized(
        charge_id=charge_id,
        amount=_from_stripe(intent.amount_capturable, intent.currency),
        multicapture=multicapture is not None and multicapture.status == "available",
        capture_before_time=datetime.fromtimestamp(before, UTC) if before is not None else None,
    )


def _result(intent: stripe.PaymentIntent, *, prior_charge_id: str) -> ChargeResult:
    latest = intent.latest_charge
    charge_id = latest if isinstance(latest, str) else latest.id if latest is not None else ""
    match intent.status:
        case "requires_capture":
            return _authorized(intent, charge_id)
        case "succeeded":
            return Charged(charge_id=charge_id, amount=_from_stripe(intent.amount_received, intent.currency))
        case "requires_action":
            redirect = intent.next_action.redirect_to_url if intent.next_action is not None else None
            return ActionRequired(url=(redirect.url if redirect is not None else None) or "")
        case "processing":
            return StillProcessing()
    error = intent.last_payment_error
    if (
        intent.status == "requires_payment_method"
        and error is not None
        and (charge_id != prior_charge_id or not charge_id)
    ):
        decline = decline_of(
            code=error.code or "",
            decline_code=error.decline_code or "",
            advice_code=getattr(error, "advice_code", "") or "",
        )
        return CardDeclined(charge_id=charge_id, decline=decline)
    return NotConfirmed()


def _declined(error: stripe.CardError) -> CardDeclined:
    body = error.json_body["error"] if isinstance(error.json_body, dict) else {}
    return CardDeclined(
        charge_id=str(body.get("charge") or ""),
        decline=decline_of(
            code=error.code or "",
            decline_code=str(body.get("decline_code") or ""),
            advice_code=str(body.get("advice_code") or ""),
        ),
    )


def _refund_result(refund: stripe.Refund) -> RefundResult:
    return RefundResult(
        stripe_refund_id=refund.id,
        state=_REFUND_STATES[refund.status or "pending"],
        failure_reason=getattr(refund, "failure_reason", None) or "",
    )


def _to_stripe(amount: Money) -> int:
    factor = 100 if amount.currency in _HUNDREDFOLD else 1
    return amount.amount_minor * factor


def _from_stripe(amount: int, currency: str) -> Money:
    code = currency.upper()
    if code in _HUNDREDFOLD:
        whole, rest = divmod(amount, 100)
        invariant(rest == 0, "Stripe charged a part of a whole unit", currency=code, amount=amount)
        return Money(amount_minor=whole, currency=code)
    return Money(amount_minor=amount, currency=code)
