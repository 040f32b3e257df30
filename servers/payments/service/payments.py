"""Payments, attempts, captures: proto in, use case, proto out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from google.api import httpbody_pb2
from paymesh.payments.v1 import payments_pb2

from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.kernel.money import is_currency
from servers.payments import store
from servers.payments.domain import CaptureMethod, Payment, Source
from servers.payments.render import attempt_message
from servers.payments.service.base import Base, amount_of, is_payer, manner_of, owner, usage_of
from servers.payments.service.returning import send_on
from servers.payments.usecases import (
    CHANGEABLE,
    CapturePayment,
    ConfirmPayment,
    CreatePayment,
    Payer,
    UpdatePayment,
    approve_payment,
    cancel_payment,
    capture_payment,
    confirm_payment,
    create_payment,
    learn_payment,
    refresh_payment,
    update_payment,
)
from servers.runtime.call import PrincipalKind, current_call
from servers.runtime.render import expected_version, instant
from servers.runtime.requests import fields_to_change, idempotent


class Payments(Base):
    """Payments, for merchants and those who pay."""

    async def CreatePayment(self, request: payments_pb2.CreatePaymentRequest, context: Any) -> payments_pb2.Payment:
        """Create a payment for the caller's merchant."""
        if not is_currency(request.amount.currency):
            raise FieldInvalid.of("amount.currency", "must be an ISO 4217 currency, for example USD")
        ticket = idempotent(request, render=self._renderer.payment_with_secret, secret=True)
        command = CreatePayment(
            merchant_id=current_call().principal.merchant_id,
            customer_id=request.customer_id,
            amount=amount_of(request.amount),
            capture_method=_capture_method(request),
            payment_method_id=request.payment_method_id,
            confirm=request.confirm,
            manner=manner_of(
                return_url=request.return_url, use_stripe_sdk=request.use_stripe_sdk, off_session=request.off_session
            ),
            statement_descriptor_suffix=request.statement_descriptor_suffix,
            description=request.description,
            metadata=dict(request.metadata),
            capture_deadline=_deadline(request),
        )
        return self._renderer.payment_with_secret(await create_payment(self._deps, ticket, command))

    async def GetPayment(self, request: payments_pb2.GetPaymentRequest, context: Any) -> payments_pb2.Payment:
        """Return a payment; its merchant gets the secret with it."""
        payer = self._payer(request.payment_id, request.client_secret)
        async with self._deps.db.read() as conn:
            payment = await store.payment(conn, request.payment_id)
        staff = current_call().principal.kind is PrincipalKind.STAFF
        if payment is None or not (staff or _may_see(payment, payer)):
            raise ResourceNotFound(request.payment_id)
        payment = await refresh_payment(self._deps, payment)
        merchant = not payer.shopper and not payer.customer_id and not staff
        return self._renderer.payment_with_secret(payment) if merchant else self._shown(payment)

    async def ListPayments(
        self, request: payments_pb2.ListPaymentsRequest, context: Any
    ) -> payments_pb2.ListPaymentsResponse:
        """List payments."""
        page = self._pages.read(request)
        owner_id, customer_id = owner()
        async with self._deps.db.read() as conn:
            found = await store.payments(
                conn,
                owner_id=owner_id,
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

    async def UpdatePayment(self, request: payments_pb2.UpdatePaymentRequest, context: Any) -> payments_pb2.Payment:
        """Change a payment of the caller's merchant."""
        ticket = idempotent(request, render=self._shown)
        command = UpdatePayment(
            payment_id=request.payment_id,
            merchant_id=current_call().principal.merchant_id,
            fields=fields_to_change(request, CHANGEABLE),
            expected=expected_version(request.etag),
            description=request.description,
            metadata=dict(request.metadata),
            statement_descriptor_suffix=request.statement_descriptor_suffix,
            capture_deadline=_deadline(request),
        )
        return self._shown(await update_payment(self._deps, ticket, command))

    async def ConfirmPayment(self, request: payments_pb2.ConfirmPaymentRequest, context: Any) -> payments_pb2.Payment:
        """Charge a card or a wallet of whoever pays."""
        ticket = idempotent(request, render=self._shown, secret=request.use_stripe_sdk)
        command = ConfirmPayment(
            payment_id=request.payment_id,
            payer=self._payer(request.payment_id, request.client_secret),
            source=Source(
                payment_method_id=request.payment_method_id,
                stripe_payment_method_id=request.stripe_payment_method_id,
                wallet_id=request.wallet_id,
            ),
            manner=manner_of(
                return_url=request.return_url,
                use_stripe_sdk=request.use_stripe_sdk,
                off_session=request.off_session,
                save_for=usage_of(request.setup_future_usage),
            ),
        )
        return self._shown(await confirm_payment(self._deps, ticket, command))

    async def ReturnPayment(self, request: payments_pb2.ReturnPaymentRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Send a cardholder on who comes back from their bank."""
        async with self._deps.db.read() as conn:
            payment = await store.payment(conn, request.payment_id)
        attempt = payment.latest_attempt if payment is not None else None
        if payment is None or attempt is None:
            raise ResourceNotFound(request.payment_id)
        await learn_payment(self._deps, payment)
        return await send_on(context, attempt.manner.return_url, "payment_id", payment.id)

    async def CapturePayment(self, request: payments_pb2.CapturePaymentRequest, context: Any) -> payments_pb2.Payment:
        """Capture a payment of the caller's merchant."""
        ticket = idempotent(request, render=self._shown)
        command = CapturePayment(
            payment_id=request.payment_id,
            merchant_id=current_call().principal.merchant_id,
            amount=amount_of(request.amount) if request.HasField("amount") else None,
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

    async def ApprovePayment(self, request: payments_pb2.ApprovePaymentRequest, context: Any) -> payments_pb2.Payment:
        """Let a payment of the caller's merchant go on that is in review."""
        ticket = idempotent(request, render=self._shown)
        merchant_id = current_call().principal.merchant_id
        payment = await approve_payment(self._deps, ticket, payment_id=request.payment_id, merchant_id=merchant_id)
        return self._shown(payment)

    async def RejectPayment(self, request: payments_pb2.RejectPaymentRequest, context: Any) -> payments_pb2.Payment:
        """End a payment of the caller's merchant that is in review."""
        ticket = idempotent(request, render=self._shown)
        payment = await cancel_payment(
            self._deps,
            ticket,
            payment_id=request.payment_id,
            merchant_id=current_call().principal.merchant_id,
            reason=payments_pb2.Payment.CancellationReason.Name(payments_pb2.Payment.REVIEW_REJECTED),
            in_review=True,
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
            attempts=[attempt_message(attempt, payer=is_payer()) for attempt in found[: page.size]],
            next_page_token=self._pages.token(request, [attempt.id for attempt in found], page.size),
        )


def _may_see(payment: Payment, payer: Payer) -> bool:
    """Tell whether a payment exists for a reader: its payer, its merchant, or a shopper with its secret."""
    return payer.may_confirm(payment) or (bool(payer.customer_id) and payment.customer_id == payer.customer_id)


def _deadline(request: payments_pb2.CreatePaymentRequest | payments_pb2.UpdatePaymentRequest) -> datetime | None:
    return instant(request.capture_before) if request.HasField("capture_before") else None


def _capture_method(request: payments_pb2.CreatePaymentRequest) -> CaptureMethod:
    given = request.capture_method or payments_pb2.Payment.AUTOMATIC
    return CaptureMethod[payments_pb2.Payment.CaptureMethod.Name(given)]
