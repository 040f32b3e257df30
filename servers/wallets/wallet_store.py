"""The SQL of wallets and top-ups. What is in a wallet is read from the ledger's accounts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from servers.wallets.resources import Wallet, WalletState


async def wallets_by_id(conn: AsyncConnection, ids: Iterable[str]) -> list[Wallet]:
    """Return wallets of anybody by their ids."""
    rows = await conn.execute(
        text("SELECT * FROM wallets WHERE id = ANY(CAST(:ids AS text[])) ORDER BY id"), {"ids": sorted(set(ids))}
    )
    return [_wallet(row) for row in rows]


def _wallet(row: Row[Any]) -> Wallet:
    return Wallet(
        id=row.id,
        owner_id=row.owner_id,
        currency=row.currency,
        state=WalletState(row.state),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
