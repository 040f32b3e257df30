"""Mandates taken back, and merchants' settings for payments."""

from __future__ import annotations

from collections.abc import Sequence

from servers.kernel.errors import ResourceNotFound, check_etag
from servers.payments import store
from servers.payments.domain import Mandate, MandateState, PaymentSettings
from servers.payments.usecases.deps import Deps
from servers.runtime.idempotency import IdempotentRequest


async def revoke_mandate(deps: Deps, request: IdempotentRequest, owner_id: str, mandate_id: str) -> Mandate:
    """Take a mandate back; one that is revoked stays so. Raises ResourceNotFound."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            mandate = await store.mandate(uow.conn, owner_id, mandate_id, lock=True)
            if mandate is None:
                raise ResourceNotFound(mandate_id)
            if mandate.state is MandateState.ACTIVE:
                mandate = deps.saving.revoke(uow, mandate)
            uow.idempotency.complete(request, mandate)
    return mandate


async def replace_settings(
    deps: Deps,
    request: IdempotentRequest,
    merchant_id: str,
    origins: Sequence[str],
    expected_version: int | None,
    *,
    refunds_wait: bool = False,
) -> PaymentSettings:
    """Replace a merchant's settings. Raises EtagMismatch, ConcurrentUpdate."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            current = await store.payment_settings(uow.conn, merchant_id, lock=True)
            check_etag(merchant_id, expected=expected_version, version=current.version)
            now = deps.clock.now()
            settings = PaymentSettings(
                merchant_id=merchant_id,
                return_url_origins=tuple(origins),
                refunds_wait=refunds_wait,
                version=current.version + 1,
                update_time=now,
            )
            store.save_payment_settings(uow.conn, settings, now)
            uow.idempotency.complete(request, settings)
    return settings
