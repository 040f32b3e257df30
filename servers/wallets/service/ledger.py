"""The ledger, for other servers."""

from __future__ import annotations

from typing import Any

from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc

from servers.kernel.errors import FieldInvalid
from servers.kernel.money import is_currency
from servers.runtime.db import Database
from servers.wallets import store, wallet_store
from servers.wallets.domain import AccountKind, Verdict, account_id
from servers.wallets.render import (
    VERDICTS,
    parse_fact,
    parse_transfer,
    render_account,
    render_transfer,
    render_wallet_account,
)
from servers.wallets.writer import Writer


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
            response.results.add(verdict=VERDICTS[verdict], account=render_account(opened[identifier]))
        return response

    async def PostTransfers(
        self, request: ledger_pb2.PostTransfersRequest, context: Any
    ) -> ledger_pb2.PostTransfersResponse:
        """Write transfers. Raises LedgerOverloaded."""
        verdicts = await self._writer.post([parse_transfer(transfer) for transfer in request.transfers])
        response = ledger_pb2.PostTransfersResponse()
        for transfer, (verdict, field) in zip(request.transfers, verdicts, strict=True):
            response.results.add(transfer_id=transfer.id, verdict=VERDICTS[verdict], differing_field=field)
        return response

    async def PostFact(self, request: ledger_pb2.PostFactRequest, context: Any) -> ledger_pb2.PostFactResponse:
        """Book a fact; one that takes from a wallet may be refused by its verdict. Raises LedgerOverloaded."""
        posted = await self._writer.post_fact(parse_fact(request))
        return ledger_pb2.PostFactResponse(
            verdict=VERDICTS[posted.verdicts[0][0]],
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
