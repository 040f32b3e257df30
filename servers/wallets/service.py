"""The gRPC face of the ledger: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc, wallets_pb2, wallets_pb2_grpc

from servers.kernel.errors import FieldInvalid
from servers.kernel.money import is_currency
from servers.runtime.call import current_call
from servers.runtime.db import Database
from servers.runtime.pagination import START, Pages
from servers.wallets import store, wallet_store
from servers.wallets.domain import AccountKind, Verdict, account_id
from servers.wallets.render import (
    parse_fact,
    parse_transfer,
    render_account,
    render_balances,
    render_line,
    render_transfer,
    render_wallet_account,
)
from servers.wallets.writer import Writer


class WalletService(wallets_pb2_grpc.WalletServiceServicer):
    """Balances and their lines, for merchants."""

    def __init__(self, db: Database, pages: Pages) -> None:
        self._db = db
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
        kind = (
            AccountKind.MERCHANT_PENDING
            if request.balance == wallets_pb2.PENDING_SETTLEMENT
            else AccountKind.MERCHANT_AVAILABLE
        )
        account = account_id(current_call().principal.merchant_id, kind, request.currency)
        # An account's lines are numbered: the page token carries the number.
        before = None if page.before == START else int(page.before)
        async with self._db.read() as conn:
            lines = await store.statement(conn, account, before=before, limit=page.size + 1)
        return wallets_pb2.ListBalanceTransactionsResponse(
            balance_transactions=[render_line(line) for line in lines[: page.size]],
            next_page_token=self._pages.token(request, [str(line.version) for line in lines], page.size),
        )


class LedgerService(ledger_pb2_grpc.LedgerServiceServicer):
    """The ledger, for other servers."""

    def __init__(self, db: Database, writer: Writer) -> None:
        self._db = db
        self._writer = writer

    async def CreateAccounts(
        self, request: ledger_pb2.CreateAccountsRequest, context: Any
    ) -> ledger_pb2.CreateAccountsResponse:
        """Open accounts. Raises FieldInvalid for a currency that there is not."""
        wanted = []
        for index, account in enumerate(request.accounts):
            if not is_currency(account.currency):
                raise FieldInvalid.of(f"accounts[{index}].currency", "must be an ISO 4217 currency")
            wanted.append((account.owner_id, AccountKind(ledger_pb2.Account.Kind.Name(account.kind)), account.currency))
        async with self._db.uow() as uow:
            new = await store.open_accounts(uow.conn, wanted, self._db.clock.now())
            ids = [account_id(*row) for row in wanted]
            opened = {account.id: account for account in await store.accounts(uow.conn, ids)}
        response = ledger_pb2.CreateAccountsResponse()
        for identifier in ids:
            verdict = Verdict.CREATED if identifier in new else Verdict.EXISTS
            response.results.add(
                verdict=ledger_pb2.Verdict.Value(verdict.value), account=render_account(opened[identifier])
            )
        return response

    async def PostTransfers(
        self, request: ledger_pb2.PostTransfersRequest, context: Any
    ) -> ledger_pb2.PostTransfersResponse:
        """Write transfers. Raises LedgerOverloaded."""
        verdicts = await self._writer.post([parse_transfer(transfer) for transfer in request.transfers])
        response = ledger_pb2.PostTransfersResponse()
        for transfer, (verdict, field) in zip(request.transfers, verdicts, strict=True):
            response.results.add(
                transfer_id=transfer.id, verdict=ledger_pb2.Verdict.Value(verdict.value), differing_field=field
            )
        return response

    async def PostFact(self, request: ledger_pb2.PostFactRequest, context: Any) -> ledger_pb2.PostFactResponse:
        """Book a fact; one that takes from a wallet may be refused by its verdict. Raises LedgerOverloaded."""
        posted = await self._writer.post_fact(parse_fact(request))
        return ledger_pb2.PostFactResponse(
            verdict=ledger_pb2.Verdict.Value(posted.verdicts[0][0].value),
            transfers=[render_transfer(transfer) for transfer in posted.transfers],
        )

    async def LookupWallets(
        self, request: ledger_pb2.LookupWalletsRequest, context: Any
    ) -> ledger_pb2.LookupWalletsResponse:
        """Return wallets with their accounts."""
        async with self._db.read() as conn:
            found = await wallet_store.wallets_by_id(conn, request.wallet_ids)
            accounts = {a.id: a for a in await store.accounts(conn, [wallet.account_id for wallet in found])}
        return ledger_pb2.LookupWalletsResponse(
            wallets=[render_wallet_account(wallet, accounts[wallet.account_id]) for wallet in found]
        )

    async def GetAccounts(self, request: ledger_pb2.GetAccountsRequest, context: Any) -> ledger_pb2.GetAccountsResponse:
        """Return accounts by id."""
        async with self._db.read() as conn:
            found = await store.accounts(conn, request.account_ids)
        return ledger_pb2.GetAccountsResponse(accounts=[render_account(account) for account in found])

    async def LookupTransfers(
        self, request: ledger_pb2.LookupTransfersRequest, context: Any
    ) -> ledger_pb2.LookupTransfersResponse:
        """Return transfers by id."""
        async with self._db.read() as conn:
            found = await store.transfers(conn, request.transfer_ids)
        return ledger_pb2.LookupTransfersResponse(transfers=[render_transfer(found[i]) for i in sorted(found)])
