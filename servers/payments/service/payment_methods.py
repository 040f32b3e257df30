"""Payment methods: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2

from servers.kernel.errors import ResourceNotFound
from servers.payments import store
from servers.payments.service.base import Base
from servers.payments.usecases import create_payment_method, detach_payment_method, set_default_method
from servers.runtime.call import PrincipalKind, current_call
from servers.runtime.requests import idempotent


class PaymentMethods(Base):
    """Cards, for their owners."""

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
        """Return one of the user's cards, or one that the merchant holds a mandate for."""
        principal = current_call().principal
        async with self._deps.db.read() as conn:
            owner_id = principal.subject
            if principal.kind is not PrincipalKind.CUSTOMER:
                held = await store.active_mandates(
                    conn, merchant_id=principal.merchant_id, method_id=request.payment_method_id
                )
                owner_id = held[0].owner_id if held else ""
            method = await store.method(conn, owner_id, request.payment_method_id)
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
