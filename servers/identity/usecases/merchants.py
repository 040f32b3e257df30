"""Merchants."""

from __future__ import annotations

from dataclasses import replace

from servers.identity import store
from servers.identity.domain import (
    Merchant,
)
from servers.identity.render import event
from servers.identity.usecases.audit import note
from servers.identity.usecases.deps import Deps
from servers.kernel.errors import FieldInvalid, ResourceNotFound, check_etag
from servers.kernel.ids import new_id
from servers.kernel.money import is_currency
from servers.runtime.call import Principal
from servers.runtime.idempotency import IdempotentRequest


async def create_merchant(
    deps: Deps, request: IdempotentRequest, *, owner_id: str, display_name: str, country: str, default_currency: str
) -> Merchant:
    """Create a merchant with the caller as its owner. Raises FieldInvalid."""
    if not is_currency(default_currency):
        raise FieldInvalid.of("default_currency", "must be an ISO 4217 currency, for example USD")
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        now = deps.clock.now()
        merchant = Merchant(
            id=new_id("mer", clock=deps.clock),
            display_name=display_name,
            country=country,
            default_currency=default_currency,
            role="owner",
            version=1,
            create_time=now,
            update_time=now,
        )
        store.insert_merchant(uow.conn, merchant, owner_id)
        uow.outbox.append(event("merchant.created", merchant))
        note(deps, uow, merchant.id, "merchant.created", merchant.id)
        uow.idempotency.complete(request, merchant)
    return merchant


async def update_merchant(
    deps: Deps, request: IdempotentRequest, principal: Principal, *, display_name: str, expected: int | None
) -> Merchant:
    """Change a merchant's name. Raises EtagMismatch."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        merchant = await store.merchant_of_member(uow.conn, principal.merchant_id, principal.subject)
        if merchant is None:
            raise ResourceNotFound(principal.merchant_id)
        check_etag(merchant.id, expected=expected, version=merchant.version)
        changed = replace(
            merchant, display_name=display_name, version=merchant.version + 1, update_time=deps.clock.now()
        )
        store.update_merchant(uow.conn, changed, expected=merchant.version)
        uow.outbox.append(event("merchant.updated", changed))
        note(deps, uow, merchant.id, "merchant.updated", merchant.id, display_name=display_name)
        uow.idempotency.complete(request, changed)
    return changed
