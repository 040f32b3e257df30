"""Proofs of lines, and the roots that they lead to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from paymesh.wallets.v1 import proofs_pb2, proofs_pb2_grpc

from servers.runtime.call import current_call
from servers.runtime.db import Database
from servers.runtime.pagination import START, Pages
from servers.runtime.render import instant
from servers.wallets import chain_store
from servers.wallets.domain import account_id
from servers.wallets.render_proofs import render_proof, render_root
from servers.wallets.service.wallets import balance_kind, own_wallet
from servers.wallets.usecases.roots import Roots
from servers.wallets.writer import SHARD

_Asked = proofs_pb2.GetWalletProofRequest | proofs_pb2.GetBalanceProofRequest


class ProofService(proofs_pb2_grpc.ProofServiceServicer):
    """What lets anybody check the ledger without us."""

    def __init__(self, db: Database, roots: Roots, pages: Pages) -> None:
        self._db = db
        self._roots = roots
        self._pages = pages

    async def ListLedgerRoots(
        self, request: proofs_pb2.ListLedgerRootsRequest, context: Any
    ) -> proofs_pb2.ListLedgerRootsResponse:
        """List the published roots."""
        page = self._pages.read(request)
        before = None if page.before == START else datetime.fromisoformat(page.before)
        async with self._db.read() as conn:
            found = await chain_store.roots(conn, SHARD, before=before, limit=page.size + 1)
        return proofs_pb2.ListLedgerRootsResponse(
            roots=[render_root(root) for root in found[: page.size]],
            next_page_token=self._pages.token(request, [root.start_time.isoformat() for root in found], page.size),
        )

    async def GetWalletProof(self, request: proofs_pb2.GetWalletProofRequest, context: Any) -> proofs_pb2.LedgerProof:
        """Prove lines of one of the user's wallets."""
        async with self._db.read() as conn:
            wallet = await own_wallet(conn, request.wallet_id)
        return await self._prove(request, wallet.account_id)

    async def GetBalanceProof(self, request: proofs_pb2.GetBalanceProofRequest, context: Any) -> proofs_pb2.LedgerProof:
        """Prove lines of one of the merchant's balances."""
        kind = balance_kind(request.balance)
        return await self._prove(request, account_id(current_call().principal.merchant_id, kind, request.currency))

    async def _prove(self, request: _Asked, account: str) -> proofs_pb2.LedgerProof:
        page = self._pages.read(request)
        proof = await self._roots.prove(
            account,
            instant(request.time) if request.HasField("time") else None,
            before=None if page.before == START else int(page.before),
            limit=page.size,
        )
        versions = [str(line.version) for line in proof.lines] + ["more"] * proof.more
        return render_proof(proof, next_page_token=self._pages.token(request, versions, page.size))
