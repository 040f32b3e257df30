"""The gRPC face of the payments domain: proto in, use case, proto out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paymesh.payments.v1 import payments_pb2, payments_pb2_grpc

from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.kernel.money import is_currency
from servers.payments import store
from servers.payments.domain import CaptureMethod, Payment
from servers.payments.gateway_stripe import SignatureInvalid
from servers.payments.render import Renderer, attempt_message, refund_message
from servers.payments.usecases import (
    CapturePayment,
    CreatePayment,
    CreateRefund,
    Deps,
    cancel_payment,
    capture_payment,
    confirm_payment,
    create_payment,
    create_payment_method,
    create_refund,
    detach_payment_method,
    refresh_payment,
    set_default_method,
)
from servers.payments.webhooks import Webhooks
from servers.runtime.call import CredentialInvalid, PrincipalKind, current_call
from servers.runtime.pagination import Pages
from servers.runtime.render import instant, parse_money
from servers.runtime.requests import idempotent


class PaymentService(payments_pb2_grpc.PaymentServiceServicer):
    """Card payments, for customers and merchants."""

    def __init__(self, deps: Deps, renderer: Renderer, pages: Pages, webhooks: Webhooks) -> None:
        self._deps = deps
        self._renderer = renderer
        self._pages = pages
        self._webhooks = webhooks

    async def CreatePaymentMethod(
        self, request: payments_pb2.CreatePaymentMethodRequest, context: Any
    ) -> payments_pb2.PaymentMethod:
        """Save a card of the calling user."""
        ticket = idempotent(request, render=self._renderer.method)
        owner_id = current_call().principal.subject
        method = await create_payment_method(self._deps, ticket, owner_id, request.stripe_payment_method_id)
        return self._renderer.method(method)

    async def GetPaymentMethod(
        self, request: payments_pb2.GetPaymentMethodRequest, context: Any
    ) -> payments_pb2.PaymentMethod:
        """Return one of the user's cards."""
        async with self._deps.db.read() as conn:
            method = await store.method(conn, current_call().principal.subject, request.payment_method_id)
        if method is None:
            raise ResourceNotFound(request.payment_method_id)
        return self._renderer.method(method)

    async def ListPaymentMethods(
        self, request: payments_pb2.ListPaymentMethodsRequest, context: Any
    ) -> payments_pb2.ListPaymentMethodsResponse:
        """List the user's cards."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.methods(conn, current_call().principal.subject, before=page.before, limit=page.size + 1)
        return payments_pb2.ListPaymentMethodsResponse(
            payment_methods=[self._renderer.method(method) for method in found[: page.size]],
            next_page_token=self._pages.token(request, [method.id for method in found], page.size),
        )

    async def SetDefaultPaymentMethod(
        self, request: payments_pb2.SetDefaultPaymentMethodRequest, context: Any
    ) -> payments_pb2.PaymentMethod:
        """Make a card of the caller the default."""
        ticket = idempotent(request, render=self._renderer.method)
        owner_id = current_call().principal.subject
        method = await set_default_method(self._deps, ticket, owner_id, request.payment_method_id)
        return self._renderer.method(method)

    async def DetachPaymentMethod(
        self, request: payments_pb2.DetachPaymentMethodRequest, context: Any
    ) -> payments_pb2.PaymentMethod:
        """Remove a card of the caller."""
        ticket = idempotent(request, render=self._renderer.method)
        owner_id = current_call().principal.subject
        method = await detach_payment_method(self._deps, ticket, owner_id, request.payment_method_id)
        return self._renderer.method(method)

    async def CreatePayment(self, request: payments_pb2.CreatePaymentRequest, context: Any) -> payments_pb2.Payment:
        """Create a payment for the caller's merchant."""
        if not is_currency(request.amount.currency):
            raise FieldInvalid.of("amount.currency", "must be an ISO 4217 currency, for example USD")
        ticket = idempotent(request, render=self._renderer.payment)
        command = CreatePayment(
            merchant_id=current_call().principal.merchant_id,
            customer_id=request.customer_id,
            amount=parse_money(request.amount),
            capture_method=_capture_method(request),
            description=request.description,
            metadata=dict(request.metadata),
        )
        return self._renderer.payment(await create_payment(self._deps, ticket, command))

    async def GetPayment(self, request: payments_pb2.GetPaymentRequest, context: Any) -> payments_pb2.Payment:
        """Return a payment."""
        payment = await self._visible(request.payment_id)
        return self._shown(await refresh_payment(self._deps, payment))

    async def ListPayments(
        self, request: payments_pb2.ListPaymentsRequest, context: Any
    ) -> payments_pb2.ListPaymentsResponse:
        """List payments."""
        page = self._pages.read(request)
        merchant_id, customer_id = _owner()
        async with self._deps.db.read() as conn:
            found = await store.payments(
                conn,
                merchant_id=merchant_id,
                customer_id=customer_id,
                state=payments_pb2.Payment.State.Name(request.state) if request.state else "",
                time_from=instant(request.create_time_from) if request.HasField("create_time_from") else None,
                time_to=instant(request.create_time_to) if request.HasField("create_time_to") else None,
                before=page.before,
                limit=page.size + 1,
            )
        return payments_pb2.ListPaymentsResponse(
            payments=[self._shown(payment) for payment in found[: page.size]],
            next_page_token=self._pages.token(request, [payment.id for payment in found], page.size),
        )

    async def ConfirmPayment(self, request: payments_pb2.ConfirmPaymentRequest, context: Any) -> payments_pb2.Payment:
        """Charge the calling customer's card."""
        ticket = idempotent(request, render=self._shown)
        payment = await confirm_payment(
            self._deps,
            ticket,
            payment_id=request.payment_id,
            customer_id=current_call().principal.subject,
            method_id=request.payment_method_id,
        )
        return self._shown(payment)

    async def CapturePayment(self, request: payments_pb2.CapturePaymentRequest, context: Any) -> payments_pb2.Payment:
        """Capture a payment of the caller's merchant."""
        ticket = idempotent(request, render=self._shown)
        command = CapturePayment(
            payment_id=request.payment_id,
            merchant_id=current_call().principal.merchant_id,
            amount=parse_money(request.amount) if request.HasField("amount") else None,
            final=request.final,
        )
        return self._shown(await capture_payment(self._deps, ticket, command))

    async def CancelPayment(self, request: payments_pb2.CancelPaymentRequest, context: Any) -> payments_pb2.Payment:
        """Cancel a payment of the caller's merchant."""
        ticket = idempotent(request, render=self._shown)
        reason = request.reason or payments_pb2.Payment.REQUESTED_BY_CUSTOMER
        payment = await cancel_payment(
            self._deps,
            ticket,
            payment_id=request.payment_id,
            merchant_id=current_call().principal.merchant_id,
            reason=payments_pb2.Payment.CancellationReason.Name(reason),
        )
        return self._shown(payment)

    async def ListCaptures(
        self, request: payments_pb2.ListCapturesRequest, context: Any
    ) -> payments_pb2.ListCapturesResponse:
        """List a payment's captures."""
        page = self._pages.read(request)
        payment = await self._visible(request.payment_id)
        async with self._deps.db.read() as conn:
            found = await store.captures(conn, payment, before=page.before, limit=page.size + 1)
        shown = self._shown(replace(payment, captures=tuple(found[: page.size])))
        return payments_pb2.ListCapturesResponse(
            captures=shown.captures,
            next_page_token=self._pages.token(request, [capture.id for capture in found], page.size),
        )

    async def ListAttempts(
        self, request: payments_pb2.ListAttemptsRequest, context: Any
    ) -> payments_pb2.ListAttemptsResponse:
        """List a payment's attempts."""
        page = self._pages.read(request)
        payment = await self._visible(request.payment_id)
        async with self._deps.db.read() as conn:
            found = await store.attempts(conn, payment, before=page.before, limit=page.size + 1)
        return payments_pb2.ListAttemptsResponse(
            attempts=[attempt_message(attempt) for attempt in found[: page.size]],
            next_page_token=self._pages.token(request, [attempt.id for attempt in found], page.size),
        )

    async def CreateRefund(self, request: payments_pb2.CreateRefundRequest, context: Any) -> payments_pb2.Refund:
        """Refund a payment of the caller's merchant."""
        ticket = idempotent(request, render=refund_message)
        reason = request.reason or payments_pb2.Refund.CUSTOMER_REQUEST
        amount = parse_money(request.amount) if request.HasField("amount") else None
        command = CreateRefund(
            payment_id=request.payment_id,
            merchant_id=current_call().principal.merchant_id,
            amount=amount,
            reason=payments_pb2.Refund.Reason.Name(reason),
            metadata=dict(request.metadata),
        )
        return refund_message(await create_refund(self._deps, ticket, command))

    async def GetRefund(self, request: payments_pb2.GetRefundRequest, context: Any) -> payments_pb2.Refund:
        """Return a refund of a payment that the caller may see."""
        async with self._deps.db.read() as conn:
            refund = await store.refund(conn, request.refund_id)
        if refund is None:
            raise ResourceNotFound(request.refund_id)
        merchant_id, customer_id = _owner()
        async with self._deps.db.read() as conn:
            payment = await store.payment(conn, refund.payment_id, merchant_id=merchant_id, customer_id=customer_id)
        if payment is None:
            raise ResourceNotFound(request.refund_id)
        return refund_message(refund)

    async def ListRefunds(
        self, request: payments_pb2.ListRefundsRequest, context: Any
    ) -> payments_pb2.ListRefundsResponse:
        """List the merchant's refunds."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.refunds_of_merchant(
                conn,
                current_call().principal.merchant_id,
                state=payments_pb2.Refund.State.Name(request.state) if request.state else "",
                before=page.before,
                limit=page.size + 1,
            )
        return payments_pb2.ListRefundsResponse(
            refunds=[refund_message(refund) for refund in found[: page.size]],
            next_page_token=self._pages.token(request, [refund.id for refund in found], page.size),
        )

    async def ListPaymentRefunds(
        self, request: payments_pb2.ListPaymentRefundsRequest, context: Any
    ) -> payments_pb2.ListPaymentRefundsResponse:
        """List a payment's refunds."""
        page = self._pages.read(request)
        payment = await self._visible(request.payment_id)
        async with self._deps.db.read() as conn:
            found = await store.refunds(conn, payment, before=page.before, limit=page.size + 1)
        return payments_pb2.ListPaymentRefundsResponse(
            refunds=[refund_message(refund) for refund in found[: page.size]],
            next_page_token=self._pages.token(request, [refund.id for refund in found], page.size),
        )

    async def ReceiveStripeWebhook(
        self, request: payments_pb2.ReceiveStripeWebhookRequest, context: Any
    ) -> payments_pb2.ReceiveStripeWebhookResponse:
        """Store an event that Stripe signed."""
        body = request.body.data
        try:
            event = self._deps.gateway.verify_webhook(body, current_call().metadata.get("stripe-signature", ""))
        except SignatureInvalid as error:
            raise CredentialInvalid from error
        await self._webhooks.receive(event, body)
        return payments_pb2.ReceiveStripeWebhookResponse(stripe_event_id=event.id)

    def _shown(self, payment: Payment) -> payments_pb2.Payment:
        """Return a payment as its caller may see it: what the platform keeps and the merchant's notes are not the customer's."""
        message = self._renderer.payment(payment)
        if current_call().principal.kind is PrincipalKind.CUSTOMER:
            message.metadata.clear()
            own = [action for action in message.available_actions if action == "confirm"]
            message.available_actions[:] = own
            for capture in message.captures:
                capture.ClearField("fee")
                capture.ClearField("fee_plan_version")
        return message

    async def _visible(self, payment_id: str) -> Payment:
        merchant_id, customer_id = _owner()
        async with self._deps.db.read() as conn:
            payment = await store.payment(conn, payment_id, merchant_id=merchant_id, customer_id=customer_id)
        if payment is None:
            raise ResourceNotFound(payment_id)
        return payment


def _owner() -> tuple[str | None, str | None]:
    """Return (merchant, None) or (None, customer): whose payments the caller may see."""
    principal = current_call().principal
    if principal.kind is PrincipalKind.CUSTOMER:
        return None, principal.subject
    return principal.merchant_id, None


def _capture_method(request: payments_pb2.CreatePaymentRequest) -> CaptureMethod:
    given = request.capture_method or payments_pb2.Payment.AUTOMATIC
    return CaptureMethod[payments_pb2.Payment.CaptureMethod.Name(given)]
