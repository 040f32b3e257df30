"""Opening wallets."""

from __future__ import annotations

from servers.kernel.errors import FieldInvalid, ReferenceTaken
from servers.kernel.money import is_currency
from servers.runtime.idempotency import IdempotentRequest
from servers.wallets import store, wallet_store
from servers.wallets.domain import AccountKind, wallet_id
from servers.wallets.events import wallet_event
from servers.wallets.resources import WALLET, Wallet
from servers.wallets.usecases.deps import Deps


async def create_wallet(deps: Deps, request: IdempotentRequest, *, owner_id: str, currency: str) -> Wallet:
    """Open a user's wallet in a currency, with the account that holds its money. Raises FieldInvalid, and ReferenceTaken where
    there is one."""
    if not is_currency(currency):
        raise FieldInvalid.of("currency", "must be an ISO 4217 currency, for example USD")
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        now, arrow = deps.clock.now(), WALLET.arrow(None, "create")
        wallet = Wallet(
            id=wallet_id(owner_id, currency),
            owner_id=owner_id,
            currency=currency,
            state=arrow.target,
            version=1,
            create_time=now,
            update_time=now,
        )
        async with uow.refusals(request):
            if not await wallet_store.insert_wallet(uow.conn, wallet):
                raise ReferenceTaken("currency", "There is a wallet with this currency already.")
        await store.open_accounts(uow.conn, [(owner_id, AccountKind.CUSTOMER_WALLET, currency)], now)
        uow.outbox.append(wallet_event(arrow.event, wallet))
        uow.idempotency.complete(request, wallet)
    return wallet
