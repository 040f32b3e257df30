"""The SQL of wallets and top-ups. What is in a wallet is read from the ledger's accounts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from servers.kernel.money import Money
from servers.runtime.connection import Connection
from servers.runtime.sealed import Sealer
from servers.runtime.sql import Row, text
from servers.wallets import store
from servers.wallets.resources import Decline, Holdings, NextAction, TopUp, TopUpState, Wallet, WalletState


async def insert_wallet(conn: Connection, wallet: Wallet) -> bool:
    """Insert a wallet. False where its owner has one in its currency already."""
    done = await conn.execute(
        text(
            """
            INSERT INTO wallets (owner_id, id, currency, state, version, create_time, update_time)
            VALUES (:owner_id, :id, :currency, :state, :version, :create_time, :update_time)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "owner_id": wallet.owner_id,
            "id": wallet.id,
            "currency": wallet.currency,
            "state": wallet.state.value,
            "version": wallet.version,
            "create_time": wallet.create_time,
            "update_time": wallet.update_time,
        },
    )
    return bool(done.rowcount)


async def wallet(conn: Connection, owner_id: str, wallet_id: str, *, lock: bool = False) -> Wallet | None:
    """Return one of a user's wallets."""
    suffix = " FOR NO KEY UPDATE" if lock else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM wallets WHERE owner_id = :owner AND id = :id{suffix}"),
            {"owner": owner_id, "id": wallet_id},
        )
    ).one_or_none()
    return _wallet(row) if row is not None else None


async def wallets(conn: Connection, owner_id: str, *, before: tuple[datetime, str] | None, limit: int) -> list[Wallet]:
    """Return a user's wallets, newest first. Their ids are derived and so in no order of time."""
    time, identifier = before or (None, "")
    rows = await conn.execute(
        text(
            """
            SELECT * FROM wallets WHERE owner_id = :owner
              AND (CAST(:time AS timestamptz) IS NULL OR (create_time, id) < (:time, :id))
            ORDER BY create_time DESC, id DESC LIMIT :limit
            """
        ),
        {"owner": owner_id, "time": time, "id": identifier, "limit": limit},
    )
    return [_wallet(row) for row in rows]


async def wallets_by_id(conn: Connection, ids: Iterable[str]) -> list[Wallet]:
    """Return wallets of anybody by their ids."""
    rows = await conn.execute(
        text("SELECT * FROM wallets WHERE id = ANY(CAST(:ids AS text[])) ORDER BY id"), {"ids": sorted(set(ids))}
    )
    return [_wallet(row) for row in rows]


async def holdings(conn: Connection, owner_id: str, found: Sequence[Wallet]) -> dict[str, Holdings]:
    """Return what is in each of a user's wallets."""
    accounts = {a.id: a for a in await store.accounts(conn, [one.account_id for one in found])}
    rows = await conn.execute(
        text(
            """
            SELECT wallet_id, sum(amount_minor) AS pending FROM top_ups
            WHERE owner_id = :owner AND wallet_id = ANY(CAST(:ids AS text[])) AND state IN ('PENDING', 'REQUIRES_ACTION')
            GROUP BY wallet_id
            """
        ),
        {"owner": owner_id, "ids": [one.id for one in found]},
    )
    pending = {row.wallet_id: int(row.pending) for row in rows}
    return {one.id: Holdings(account=accounts[one.account_id], pending_minor=pending.get(one.id, 0)) for one in found}


def insert_top_up(conn: Connection, top_up: TopUp) -> None:
    """Insert a top-up of which nothing is known yet."""
    conn.write(
        text(
            """
            INSERT INTO top_ups (owner_id, id, wallet_id, amount_minor, currency, payment_method_id, return_url, state, version,
                                 create_time, update_time)
            VALUES (:owner_id, :id, :wallet_id, :amount, :currency, :method_id, :return_url, :state, :version, :create_time,
                    :update_time)
            """
        ),
        {
            "owner_id": top_up.owner_id,
            "id": top_up.id,
            "wallet_id": top_up.wallet_id,
            "amount": top_up.amount.amount_minor,
            "currency": top_up.amount.currency,
            "method_id": top_up.payment_method_id,
            "return_url": top_up.return_url,
            "state": top_up.state.value,
            "version": top_up.version,
            "create_time": top_up.create_time,
            "update_time": top_up.update_time,
        },
    )


async def top_up(
    conn: Connection, sealer: Sealer, owner_id: str, top_up_id: str, *, lock: bool = False
) -> TopUp | None:
    """Return one of a user's top-ups. To lock one, its wallet is locked first: it is the root of what is told."""
    key = {"owner": owner_id, "id": top_up_id}
    statement = "SELECT * FROM top_ups WHERE owner_id = :owner AND id = :id"
    if lock:
        await conn.execute(
            text(
                """
                SELECT w.id FROM wallets w JOIN top_ups t ON t.owner_id = w.owner_id AND t.wallet_id = w.id
                WHERE t.owner_id = :owner AND t.id = :id FOR NO KEY UPDATE OF w
                """
            ),
            key,
        )
        statement += " FOR NO KEY UPDATE"
    row = (await conn.execute(text(statement), key)).one_or_none()
    return _top_up(row, sealer) if row is not None else None


async def top_up_by_id(conn: Connection, sealer: Sealer, top_up_id: str) -> TopUp:
    """Return anybody's top-up."""
    row = (await conn.execute(text("SELECT * FROM top_ups WHERE id = :id"), {"id": top_up_id})).one()
    return _top_up(row, sealer)


async def top_ups(conn: Connection, sealer: Sealer, found: Wallet, *, before: str, limit: int) -> list[TopUp]:
    """Return a wallet's top-ups, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM top_ups WHERE owner_id = :owner AND wallet_id = :wallet AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"owner": found.owner_id, "wallet": found.id, "before": before, "limit": limit},
    )
    return [_top_up(row, sealer) for row in rows]


def save_top_up(conn: Connection, sealer: Sealer, moved: TopUp, *, expected: int) -> None:
    """Write a top-up's new version. Raises ConcurrentUpdate."""
    action = json.dumps(asdict(moved.next_action)).encode() if moved.next_action is not None else None
    conn.write(
        text(
            """
            UPDATE top_ups SET state = :state, uncertain = :uncertain, payment_id = :payment_id, payment_version = :payment_version,
                   next_action = :next_action, decline = CAST(:decline AS jsonb), failure_reason = :failure_reason,
                   version = :version, update_time = :now
            WHERE owner_id = :owner AND id = :id AND version = :expected
            """
        ),
        {
            "state": moved.state.value,
            "uncertain": moved.uncertain,
            "payment_id": moved.payment_id,
            "payment_version": moved.payment_version,
            # What Stripe's SDK is given lets whoever has it go on with the payment.
            "next_action": sealer.seal(action, place=_place(moved.id)) if action is not None else None,
            "decline": json.dumps(asdict(moved.decline)) if moved.decline is not None else None,
            "failure_reason": moved.failure_reason,
            "version": moved.version,
            "now": moved.update_time,
            "owner": moved.owner_id,
            "id": moved.id,
            "expected": expected,
        },
        one_of=moved.id,
    )


def note_payment(conn: Connection, known: TopUp, payment_version: int) -> None:
    """Note which version of the payment was seen: nobody is shown it, so it is no new version of the top-up."""
    conn.write(
        text(
            "UPDATE top_ups SET payment_version = :seen WHERE owner_id = :owner AND id = :id AND payment_version < :seen"
        ),
        {"seen": payment_version, "owner": known.owner_id, "id": known.id},
    )


def _place(top_up_id: str) -> str:
    return f"top_ups.next_action|{top_up_id}"


def _wallet(row: Row) -> Wallet:
    return Wallet(
        id=row.id,
        owner_id=row.owner_id,
        currency=row.currency,
        state=WalletState(row.state),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _top_up(row: Row, sealer: Sealer) -> TopUp:
    sealed = row.next_action
    action = json.loads(sealer.open(bytes(sealed), place=_place(row.id))) if sealed is not None else None
    return TopUp(
        id=row.id,
        owner_id=row.owner_id,
        wallet_id=row.wallet_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        payment_method_id=row.payment_method_id,
        return_url=row.return_url,
        state=TopUpState(row.state),
        uncertain=row.uncertain,
        payment_id=row.payment_id,
        payment_version=row.payment_version,
        next_action=NextAction(**action) if action is not None else None,
        decline=Decline(**row.decline) if row.decline is not None else None,
        failure_reason=row.failure_reason,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
