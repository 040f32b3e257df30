"""Stripe's verbs, errors and webhooks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any, Final

import stripe

from servers.kernel.money import Money
from servers.payments.declines import METHOD_REJECTED, rejected
from servers.payments.domain import (
    Attempt,
    CaptureMethod,
    Card,
    CardDeclined,
    ChargeResult,
    DisputeNews,
    IntentStatus,
    LinesPage,
    NotConfirmed,
    Operation,
    OperationRefused,
    OperationResult,
    Payment,
    PaymentMethodRejected,
    Refund,
    RefundResult,
    RefundState,
    SetupIntent,
    SetupResult,
    Usage,
    WarningNews,
)
from servers.payments.gateway_stripe.events import EventPage, PlaceGone, WebhookEvent, event_of
from servers.payments.gateway_stripe.shapes import (
    balance_transaction_of,
    body_of,
    card_of,
    code_of,
    declined_of,
    dispute_of,
    refund_of,
    result_of,
    rounded_from_stripe,
    setup_result_of,
    status_of,
    to_stripe,
    warning_of,
)
from servers.payments.gateway_stripe.signatures import Fault, SignatureInvalid, verify
from servers.payments.gateway_stripe.transport import BROKEN_OFF, NEVER_OUT, client_over, open_session
from servers.runtime.outbound import Failure

API_VERSION: Final = "2026-08-26.dahlia"
EVENTS_OF_PAGE: Final = 100
_REASONS: Final = {
    "DUPLICATE": "duplicate",
    "FRAUDULENT": "fraudulent",
    "CUSTOMER_REQUEST": "requested_by_customer",
}
"""Of our seven reasons those that Stripe knows; with the others it is told none."""
_USAGES: Final = {Usage.ON_SESSION: "on_session", Usage.OFF_SESSION: "off_session"}
_CANCELLATIONS: Final = {
    "DUPLICATE_PAYMENT": "duplicate",
    "FRAUDULENT_PAYMENT": "fraudulent",
    "ABANDONED": "abandoned",
}


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
        return (Failure.NOT_SENT if isinstance(error.__cause__, NEVER_OUT) else Failure.UNKNOWN), None
    if isinstance(error, stripe.StripeError):
        if error.http_status == 409 and code_of(error) == "idempotency_key_in_use":
            return Failure.UNKNOWN, 1.0
        if error.http_status is not None and error.http_status >= 500:
            return Failure.ANSWERED_5XX, None
    if isinstance(error, BROKEN_OFF):
        return Failure.UNKNOWN, None
    return None


def _retry_after(error: stripe.StripeError) -> float | None:
    value = (error.headers or {}).get("retry-after", "")
    return float(value) if value.isdigit() else None


METHOD_REJECTED_RESULT: Final = CardDeclined(charge_id="", decline=METHOD_REJECTED)


class StripeGateway:
    """Stripe, as the use cases see it. Every call may raise what `classify` knows."""

    def __init__(self, api_key: str, *, api_base: str, webhook_secrets: Sequence[str], public_url: str) -> None:
        self._session = open_session()
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base} if api_base else {},
            stripe_version=API_VERSION,
            # Retries are ours: the SDK would not know which ones are safe.
            max_network_retries=0,
            http_client=client_over(self._session, api_base or stripe.DEFAULT_API_BASE),
        )
        self._webhook_secrets = tuple(webhook_secrets)
        self._public_url = public_url.rstrip("/")
        self.livemode = api_key.startswith(("sk_live_", "rk_live_"))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def create_customer(self, owner_id: str, *, key: str) -> str:
        """Return the Stripe customer of a user: the same for every try under one key."""
        customer = await self._client.v1.customers.create_async(
            {"metadata": {"paymesh_user_id": owner_id}}, {"idempotency_key": key}
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
        if method.card is None:
            raise PaymentMethodRejected("not_a_card")
        return Attached(stripe_id=method.id, card=card_of(method.card))

    async def create_intent(self, payment: Payment, customer_id: str, *, key: str) -> str | CardDeclined:
        """Create the payment's one PaymentIntent, unconfirmed, and return its id; or why Stripe would not, for example because it
        charges no sum as small. `customer_id` is Stripe's, or ""."""
        manual = payment.capture_method is CaptureMethod.MANUAL
        params: Any = {
            "amount": to_stripe(payment.amount),
            "currency": payment.amount.currency.lower(),
            "payment_method_types": ["card"],
            "capture_method": "manual" if manual else "automatic",
            "metadata": {"paymesh_payment_id": payment.id, "paymesh_owner_id": payment.owner_id},
        }
        if customer_id:
            params["customer"] = customer_id
        if payment.statement_descriptor_suffix:
            params["statement_descriptor_suffix"] = payment.statement_descriptor_suffix
        if manual:
            params["payment_method_options"] = {"card": {"request_multicapture": "if_available"}}
        try:
            intent = await self._client.v1.payment_intents.create_async(params, {"idempotency_key": key})
        except stripe.InvalidRequestError as error:
            return CardDeclined(charge_id="", decline=rejected(code_of(error)))
        return intent.id

    async def confirm(self, intent_id: str, attempt: Attempt) -> ChargeResult:
        """Confirm the intent under the attempt's id."""
        manner = attempt.manner
        params: Any = {"payment_method": attempt.source.stripe_payment_method_id, "expand": ["latest_charge"]}
        if manner.off_session:
            params["off_session"] = True
        elif manner.use_stripe_sdk:
            params["use_stripe_sdk"] = True
        else:
            # Stripe sends the cardholder to us, and we send them on: nothing that the browser carries is trusted.
            params["return_url"] = f"{self._public_url}/v1/payments/{attempt.payment_id}/return"
        if manner.save_for is not Usage.NONE:
            params["setup_future_usage"] = _USAGES[manner.save_for]
        try:
            intent = await self._client.v1.payment_intents.confirm_async(
                intent_id, params, {"idempotency_key": attempt.id}
            )
        except stripe.CardError as error:
            return declined_of(error)
        except stripe.InvalidRequestError:
            # Stripe did not carry it out: because it does not accept the card, unless the intent says something else by now.
            found = await self.read_intent(intent_id, attempt)
            return METHOD_REJECTED_RESULT if isinstance(found, NotConfirmed) else found
        return result_of(intent, None)

    async def read_intent(self, intent_id: str, attempt: Attempt) -> ChargeResult:
        """Return what the intent, as it stands now, says of an attempt: the payment's latest."""
        intent = await self._client.v1.payment_intents.retrieve_async(intent_id, {"expand": ["latest_charge"]})
        return result_of(intent, attempt)

    async def capture(
        self, intent_id: str, operation: Operation, currency: str, *, multicapture: bool
    ) -> OperationResult:
        """Capture under the operation's own id."""
        params: Any = {"amount_to_capture": to_stripe(Money(amount_minor=operation.amount_minor, currency=currency))}
        if multicapture:
            params["final_capture"] = operation.final
        try:
            intent = await self._client.v1.payment_intents.capture_async(
                intent_id, params, {"idempotency_key": operation.id}
            )
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            return OperationRefused(code=code_of(error) or "refused")
        return status_of(intent)

    async def cancel(self, intent_id: str, operation: Operation) -> OperationResult:
        """Cancel under the operation's own id."""
        params: Any = {"cancellation_reason": _CANCELLATIONS.get(operation.reason, "requested_by_customer")}
        try:
            intent = await self._client.v1.payment_intents.cancel_async(
                intent_id, params, {"idempotency_key": operation.id}
            )
        except stripe.InvalidRequestError as error:
            return OperationRefused(code=code_of(error) or "refused")
        return status_of(intent)

    async def intent_status(self, intent_id: str) -> IntentStatus:
        """Return how the intent stands as a whole."""
        return status_of(await self._client.v1.payment_intents.retrieve_async(intent_id))

    async def set_up(self, setup: SetupIntent, customer_id: str) -> tuple[str, SetupResult]:
        """Create and confirm a SetupIntent under the confirm's key: the same for every try. Returns its id with what it says."""
        params: Any = {
            "customer": customer_id,
            "payment_method": setup.stripe_payment_method_id,
            "payment_method_types": ["card"],
            "usage": _USAGES[setup.usage],
            "confirm": True,
            "expand": ["payment_method"],
            "metadata": {"paymesh_setup_intent_id": setup.id, "paymesh_confirm": setup.confirm_key},
        }
        if setup.manner.use_stripe_sdk:
            params["use_stripe_sdk"] = True
        else:
            params["return_url"] = f"{self._public_url}/v1/setup_intents/{setup.id}/return"
        try:
            intent = await self._client.v1.setup_intents.create_async(params, {"idempotency_key": setup.confirm_key})
        except stripe.CardError as error:
            return str((body_of(error).get("setup_intent") or {}).get("id") or ""), declined_of(error)
        except stripe.InvalidRequestError:
            return "", METHOD_REJECTED_RESULT
        return intent.id, setup_result_of(intent)

    async def read_setup(self, setup: SetupIntent, customer_id: str) -> tuple[str, SetupResult]:
        """Return how the present confirm's SetupIntent stands; where its id is not known it is found by its metadata."""
        if setup.stripe_id:
            intent = await self._client.v1.setup_intents.retrieve_async(setup.stripe_id, {"expand": ["payment_method"]})
            return intent.id, setup_result_of(intent)
        page = await self._client.v1.setup_intents.list_async(
            {"customer": customer_id, "limit": 100, "expand": ["data.payment_method"]}
        )
        async for found in page.auto_paging_iter():
            if found.metadata is not None and found.metadata.to_dict().get("paymesh_confirm") == setup.confirm_key:
                return found.id, setup_result_of(found)
        return "", NotConfirmed()

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
            "amount": to_stripe(refund.amount),
            "metadata": {"paymesh_refund_id": refund.id, "paymesh_reason": refund.reason},
        }
        if refund.reason in _REASONS:
            params["reason"] = _REASONS[refund.reason]
        try:
            made = await self._client.v1.refunds.create_async(params, {"idempotency_key": refund.id})
        except stripe.InvalidRequestError as error:
            return RefundResult(stripe_refund_id="", state=RefundState.FAILED, failure_reason=error.code or "refused")
        return refund_of(made)

    async def cancel_refund(self, refund: Refund) -> RefundResult:
        """Cancel a refund that waits for its customer, under a key of its own, and return how it stands then: Stripe refuses to
        cancel any other."""
        try:
            canceled = await self._client.v1.refunds.cancel_async(
                refund.stripe_refund_id, options={"idempotency_key": f"{refund.id}-cancel"}
            )
        except stripe.InvalidRequestError:
            canceled = await self._client.v1.refunds.retrieve_async(refund.stripe_refund_id)
        return refund_of(canceled)

    async def find_refund(self, refund: Refund, intent_id: str) -> RefundResult | None:
        """Return Stripe's refund that carries our id, or None where Stripe has none."""
        page = await self._client.v1.refunds.list_async({"payment_intent": intent_id, "limit": 100})
        async for found in page.auto_paging_iter():
            if found.metadata is not None and found.metadata.to_dict().get("paymesh_refund_id") == refund.id:
                return refund_of(found)
        return None

    async def balance_transactions(self, start: datetime, end: datetime | None, *, after: str) -> LinesPage:
        """Return a page of the balance transactions made in [start, end), newest first, after the line `after`. No end: up to what
        was made just now, by Stripe's clock."""
        created = {"gte": int(start.timestamp())}
        if end is not None:
            created["lt"] = ceil(end.timestamp())
        params: Any = {"created": created, "limit": 100, "expand": ["data.source"]}
        if after:
            params["starting_after"] = after
        page = await self._client.v1.balance_transactions.list_async(params)
        return LinesPage(lines=tuple(map(balance_transaction_of, page.data)), more=page.has_more)

    async def balance(self) -> dict[str, int]:
        """Return what Stripe holds for the platform, available and pending, per currency."""
        found = await self._client.v1.balance.retrieve_async()
        sums: dict[str, int] = {}
        parts: list[Any] = [*found.available, *found.pending]
        for part in parts:
            amount = rounded_from_stripe(part.amount, part.currency)
            sums[amount.currency] = sums.get(amount.currency, 0) + amount.amount_minor
        return sums

    async def read_dispute(self, stripe_dispute_id: str) -> DisputeNews | None:
        """Return how a dispute stands now, None where Stripe has none."""
        try:
            return dispute_of(await self._client.v1.disputes.retrieve_async(stripe_dispute_id))
        except stripe.InvalidRequestError:
            return None

    async def read_warning(self, stripe_warning_id: str) -> WarningNews | None:
        """Return an early fraud warning, None where Stripe has none."""
        try:
            return warning_of(await self._client.v1.radar.early_fraud_warnings.retrieve_async(stripe_warning_id))
        except stripe.InvalidRequestError:
            return None

    async def close_dispute(self, stripe_dispute_id: str, *, key: str) -> DisputeNews | OperationRefused:
        """Tell Stripe that a dispute is conceded."""
        try:
            return dispute_of(
                await self._client.v1.disputes.close_async(stripe_dispute_id, {}, {"idempotency_key": key})
            )
        except stripe.InvalidRequestError as error:
            return OperationRefused(code=code_of(error) or "refused")

    def verify_webhook(self, body: bytes, signature: str, *, now: datetime) -> WebhookEvent:
        """Check the signature on the raw bytes, with each live secret. Raises SignatureInvalid."""
        verify(body, signature, self._webhook_secrets, now=now)
        try:
            return event_of(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            raise SignatureInvalid(Fault.MALFORMED) from error

    async def list_events(self, *, since: datetime, after_id: str) -> EventPage | PlaceGone:
        """Return a page of what Stripe told since a time, newest first, after the event `after_id` where one is given. Events of
        more than 30 days ago are not there any more."""
        params: Any = {"limit": EVENTS_OF_PAGE, "created": {"gte": int(since.timestamp())}}
        if after_id:
            params["starting_after"] = after_id
        try:
            page = await self._client.v1.events.list_async(params)
        except stripe.InvalidRequestError:
            if not after_id:
                raise
            return PlaceGone()
        events = [(event_of(body), json.dumps(body).encode()) for body in (found.to_dict() for found in page.data)]
        return EventPage(events=events, more=bool(page.has_more))
