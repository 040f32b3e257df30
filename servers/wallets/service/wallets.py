"""Wallets, top-ups and balances."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from paymesh.wallets.v1 import wallets_pb2, wallets_pb2_grpc

from servers.kernel.errors import ResourceNotFound
from servers.runtime.call import current_call
from servers.runtime.connection import Connection
from servers.runtime.pagination import START, Pages
from servers.runtime.render import instant, parse_money
from servers.runtime.requests import idempotent
from servers.wallets import store, wallet_store
from servers.wallets.domain import Account, AccountKind, account_id
from servers.wallets.render import render_balances, render_line
from servers.wallets.render_wallets import render_statement_line, render_top_up, render_wallet
from servers.wallets.resources import Holdings, Wallet
from servers.wallets.usecases import (
    CreateTopUp,
    Deps,
    create_top_up,
    create_wallet,
    refresh_top_up,
)

_BALANCES: Final[dict[int, AccountKind]] = {
    wallets_pb2.PENDING_SETTLEMENT: AccountKind.MERCHANT_PENDING,
    wallets_pb2.DISPUTED: AccountKind.MERCHANT_DISPUTED,
}


class WalletService(wallets_pb2_grpc.WalletServiceServicer):
    """Balances and their lines, for merchants; wallets and top-ups, for users."""

    def __init__(self, deps: Deps, pages: Pages) -> None:
        self._deps = deps
        self._db = deps.db
        self._pages = pages

    async def GetBalances(self, request: wallets_pb2.GetBalancesRequest, context: Any) -> wallets_pb2.Balances:
        """Return the balances of the caller's merchant."""
        merchant_id = current_call().principal.merchant_id
        async with self._db.read() as conn:
            return render_balances(merchant_id, await store.accounts_of_owner(conn, merchant_id))

    async def ListBalanceTransactions(
        self, request: wallets_pb2.ListBalanceTransactionsRequest, context: Any
    ) -> wallets_pb2.ListBalanceTransactionsResponse:
        """List the lines of one of the merchant's balances."""
        page = self._pages.read(request)
        kind = balance_kind(request.balance)
        account = account_id(current_call().principal.merchant_id, kind, request.currency)
        # An account's lines are numbered: the page token carries the number.
        before = None if page.before == START else int(page.before)
        async with self._db.read() as conn:
            lines = await store.statement(conn, account, before=before, limit=page.size + 1)
        return wallets_pb2.ListBalanceTransactionsResponse(
            balance_transactions=[render_line(line) for line in lines[: page.size]],
            next_page_token=self._pages.token(request, [str(line.version) for line in lines], page.size),
        )

    async def CreateWallet(self, request: wallets_pb2.CreateWalletRequest, context: Any) -> wallets_pb2.Wallet:
        """Open a wallet of the calling user."""
        ticket = idempotent(request, render=_new_wallet)
        owner_id = current_call().principal.subject
        return _new_wallet(await create_wallet(self._deps, ticket, owner_id=owner_id, currency=request.currency))

    async def GetWallet(self, request: wallets_pb2.GetWalletRequest, context: Any) -> wallets_pb2.Wallet:
        """Return one of the user's wallets."""
        async with self._db.read() as conn:
            wallet = await own_wallet(conn, request.wallet_id)
            held = await wallet_store.holdings(conn, wallet.owner_id, [wallet])
        return render_wallet(wallet, held[wallet.id])

    async def ListWallets(
        self, request: wallets_pb2.ListWalletsRequest, context: Any
    ) -> wallets_pb2.ListWalletsResponse:
        """List the user's wallets."""
        page = self._pages.read(request)
        owner_id = current_call().principal.subject
        # Their ids follow from user and currency: the page token carries the time too.
        time, _, identifier = page.before.partition(" ")
        before = None if page.before == START else (datetime.fromisoformat(time), identifier)
        async with self._db.read() as conn:
            found = await wallet_store.wallets(conn, owner_id, before=before, limit=page.size + 1)
            held = await wallet_store.holdings(conn, owner_id, found)
        places = [f"{wallet.create_time.isoformat()} {wallet.id}" for wallet in found]
        return wallets_pb2.ListWalletsResponse(
            wallets=[render_wallet(wallet, held[wallet.id]) for wallet in found[: page.size]],
            next_page_token=self._pages.token(request, places, page.size),
        )

    async def ListStatementLines(
        self, request: wallets_pb2.ListStatementLinesRequest, context: Any
    ) -> wallets_pb2.ListStatementLinesResponse:
        """List the lines of one of the user's wallets."""
        page = self._pages.read(request)
        before = None if page.before == START else int(page.before)
        as_of = instant(request.as_of) if request.HasField("as_of") else None
        async with self._db.read() as conn:
            account = (await own_wallet(conn, request.wallet_id)).account_id
            lines = await store.statement(conn, account, before=before, limit=page.size + 1, as_of=as_of)
        return wallets_pb2.ListStatementLinesResponse(
            lines=[render_statement_line(line) for line in lines[: page.size]],
            next_page_token=self._pages.token(request, [str(line.version) for line in lines], page.size),
        )

    async def CreateTopUp(self, request: wallets_pb2.CreateTopUpRequest, context: Any) -> wallets_pb2.TopUp:
        """Add money to one of the user's wallets."""
        # The answer may hold what Stripe's SDK is given for 3-D Secure: it is stored sealed.
        ticket = idempotent(request, render=render_top_up, secret=True)
        command = CreateTopUp(
            owner_id=current_call().principal.subject,
            wallet_id=request.wallet_id,
            amount=parse_money(request.amount),
            payment_method_id=request.payment_method_id,
            return_url=request.return_url,
        )
        return render_top_up(await create_top_up(self._deps, ticket, command))

    async def GetTopUp(self, request: wallets_pb2.GetTopUpRequest, context: Any) -> wallets_pb2.TopUp:
        """Return one of the wallet's top-ups."""
        owner_id = current_call().principal.subject
        async with self._db.read() as conn:
            top_up = await wallet_store.top_up(conn, self._db.sealer, owner_id, request.top_up_id)
        if top_up is None or top_up.wallet_id != request.wallet_id:
            raise ResourceNotFound(request.top_up_id)
        return render_top_up(await refresh_top_up(self._deps, top_up))

    async def ListTopUps(self, request: wallets_pb2.ListTopUpsRequest, context: Any) -> wallets_pb2.ListTopUpsResponse:
        """List the wallet's top-ups."""
        page = self._pages.read(request)
        async with self._db.read() as conn:
            wallet = await own_wallet(conn, request.wallet_id)
            found = await wallet_store.top_ups(conn, self._db.sealer, wallet, before=page.before, limit=page.size + 1)
        return wallets_pb2.ListTopUpsResponse(
            top_ups=[render_top_up(top_up) for top_up in found[: page.size]],
            next_page_token=self._pages.token(request, [top_up.id for top_up in found], page.size),
        )


def balance_kind(asked: int) -> AccountKind:
    """Return the account behind one of a merchant's balances."""
    return _BALANCES.get(asked, AccountKind.MERCHANT_AVAILABLE)


def _new_wallet(wallet: Wallet) -> wallets_pb2.Wallet:
    """Return a wallet that was just opened: there is nothing in it."""
    empty = Account(
        id=wallet.account_id, owner_id=wallet.owner_id, kind=AccountKind.CUSTOMER_WALLET, currency=wallet.currency
    )
    return render_wallet(wallet, Holdings(account=empty, pending_minor=0))


async def own_wallet(conn: Connection, wallet_id: str) -> Wallet:
    """Return one of the calling user's wallets. Raises ResourceNotFound, for somebody else's too."""
    wallet = await wallet_store.wallet(conn, current_call().principal.subject, wallet_id)
    if wallet is None:
        raise ResourceNotFound(wallet_id)
    return wallet
