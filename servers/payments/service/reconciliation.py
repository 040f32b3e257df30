"""Reconciliation items: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import reconciliation_pb2

from servers.kernel.errors import ResourceNotFound
from servers.payments import store
from servers.payments.render import reconciliation_message
from servers.payments.service.base import Base, decider_of
from servers.payments.usecases import ItemDecision, ResolveItem, resolve_item
from servers.runtime.requests import idempotent

_Item = reconciliation_pb2.ReconciliationItem


class Reconciliation(Base):
    """How Stripe's balance compares with our records, for staff."""

    async def GetReconciliationItem(
        self, request: reconciliation_pb2.GetReconciliationItemRequest, context: Any
    ) -> reconciliation_pb2.ReconciliationItem:
        """Return an item with what arrived for it."""
        async with self._deps.db.read() as conn:
            item = await store.reconciliation_item(conn, request.reconciliation_item_id)
            if item is None:
                raise ResourceNotFound(request.reconciliation_item_id)
            lines = await store.lines_of_item(conn, item)
        return reconciliation_message(item, lines)

    async def ListReconciliationItems(
        self, request: reconciliation_pb2.ListReconciliationItemsRequest, context: Any
    ) -> reconciliation_pb2.ListReconciliationItemsResponse:
        """List items."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.reconciliation_items(
                conn,
                state=_Item.State.Name(request.state) if request.state else "",
                kind=_Item.Kind.Name(request.kind) if request.kind else "",
                payment_id=request.payment_id,
                before=page.before,
                limit=page.size + 1,
            )
        return reconciliation_pb2.ListReconciliationItemsResponse(
            reconciliation_items=[reconciliation_message(item) for item in found[: page.size]],
            next_page_token=self._pages.token(request, [item.id for item in found], page.size),
        )

    async def ResolveReconciliationItem(
        self, request: reconciliation_pb2.ResolveReconciliationItemRequest, context: Any
    ) -> reconciliation_pb2.ReconciliationItem:
        """End a break."""
        ticket = idempotent(request, render=reconciliation_message)
        command = ResolveItem(
            item_id=request.reconciliation_item_id,
            decision=ItemDecision[reconciliation_pb2.ResolveReconciliationItemRequest.Decision.Name(request.decision)],
            write_off=request.write_off,
        )
        return reconciliation_message(await resolve_item(self._deps, ticket, command, decider_of(request.reason)))
