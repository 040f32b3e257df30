"""The ledger's SQL; what every commit of the writer runs is in `bulk`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from servers.kernel.ids import bucket_of
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text
from servers.wallets.domain import (
    Account,
    AccountKind,
    Lot,
    Pending,
    StatementLine,
    Transfer,
    TransferKind,
    account_id,
    owner_bucket,
)

_ACCOUNT_COLUMNS = """a.id, a.owner_id, a.kind, a.currency, a.debits_posted, a.credits_posted, a.debits_pending,
    a.credits_pending, a.version"""
TRANSFER_COLUMNS = """t.id, t.debit_account_id, t.credit_account_id, t.amount_minor, t.currency, t.code, t.kind, t.pending_id,
    t.fact_id, t.forced, t.expire_time, t.effective_time"""
_KEYS = "unnest(CAST(:buckets AS smallint[]), CAST(:ids AS text[])) AS k(bucket, id)"


async def open_accounts(conn: Connection, wanted: Iterable[tuple[str, AccountKind, str]], now: datetime) -> set[str]:
    """Open accounts that do not exist yet. Returns the ids of those that are new."""
    rows = sorted(
        {(account_id(owner, kind, currency), owner, kind.value, currency) for owner, kind, currency in wanted}
    )
    if not rows:
        return set()
    done = await conn.execute(
        text(
            """
            INSERT INTO accounts (bucket, id, owner_id, kind, currency, create_time)
            SELECT bucket, id, owner_id, kind, currency, :now
            FROM unnest(CAST(:buckets AS smallint[]), CAST(:ids AS text[]), CAST(:owners AS text[]), CAST(:kinds AS text[]),
                        CAST(:currencies AS text[])) AS n(bucket, id, owner_id, kind, currency)
            ON CONFLICT DO NOTHING RETURNING id
            """
        ),
        {
            "buckets": [bucket_of(row[0]) for row in rows],
            "ids": [row[0] for row in rows],
            "owners": [row[1] for row in rows],
            "kinds": [row[2] for row in rows],
            "currencies": [row[3] for row in rows],
            "now": now,
        },
    )
    return set(done.scalars())


async def guard(conn: Connection, ids: Iterable[str]) -> None:
    """Let nobody else write or burn these ids until this transaction ends. A void that burns a hold which never was knows no
    account that it could lock against the hold that is just being written."""
    keys = sorted(int.from_bytes(hashlib.sha256(one.encode()).digest()[:8], "big", signed=True) for one in set(ids))
    await conn.execute(
        text("SELECT pg_advisory_xact_lock(k.key) FROM unnest(CAST(:keys AS bigint[])) AS k(key)"), {"keys": keys}
    )


async def accounts(conn: Connection, ids: Iterable[str]) -> list[Account]:
    """Return accounts without locking them."""
    rows = await conn.execute(
        text(
            f"SELECT {_ACCOUNT_COLUMNS} FROM {_KEYS} JOIN accounts a ON a.bucket = k.bucket AND a.id = k.id ORDER BY a.id"
        ),
        _keys(ids),
    )
    return [_account(row) for row in rows]


async def accounts_of_owner(conn: Connection, owner_id: str) -> list[Account]:
    """Return all accounts of one owner."""
    bucket = owner_bucket(owner_id)
    rows = await conn.execute(
        text(
            f"SELECT {_ACCOUNT_COLUMNS} FROM accounts a WHERE a.bucket = :bucket AND a.owner_id = :owner ORDER BY a.id"
        ),
        {"bucket": bucket, "owner": owner_id},
    )
    return [_account(row) for row in rows]


async def transfers(conn: Connection, ids: Iterable[str]) -> dict[str, Transfer]:
    """Return transfers by their ids."""
    rows = await conn.execute(
        text(f"SELECT {TRANSFER_COLUMNS} FROM {_KEYS} JOIN transfers t ON t.bucket = k.bucket AND t.id = k.id"),
        _keys(ids),
    )
    return {row.id: transfer_of(row) for row in rows}


async def transfers_of_facts(conn: Connection, facts: Iterable[tuple[str, str]]) -> list[Transfer]:
    """Return the transfers of (fact id, owner id) pairs; a fact's transfers stand in its owner's bucket."""
    pairs = sorted(set(facts))
    if not pairs:
        return []
    rows = await conn.execute(
        text(
            f"""
            SELECT {TRANSFER_COLUMNS} FROM {_KEYS}
            JOIN transfers t ON t.bucket = k.bucket AND t.fact_id = k.id ORDER BY t.id
            """
        ),
        {"buckets": [owner_bucket(owner) for _, owner in pairs], "ids": [fact for fact, _ in pairs]},
    )
    return [transfer_of(row) for row in rows]


async def lock_pendings(conn: Connection, ids: Iterable[str]) -> dict[str, Pending]:
    """Lock pending transfers by their ids."""
    rows = await conn.execute(
        text(
            f"""
            SELECT {TRANSFER_COLUMNS}, p.remaining_minor, p.closed FROM {_KEYS}
            JOIN transfers t ON t.bucket = k.bucket AND t.id = k.id
            JOIN pendings p ON p.bucket = k.bucket AND p.id = k.id
            ORDER BY p.bucket, p.id FOR NO KEY UPDATE OF p
            """
        ),
        _keys(ids),
    )
    return {
        row.id: Pending(transfer=transfer_of(row), remaining_minor=row.remaining_minor, closed=row.closed)
        for row in rows
    }


async def lock_lots(conn: Connection, lots: Iterable[tuple[str, str]]) -> dict[str, Lot]:
    """Lock the lots of (capture id, merchant id) pairs."""
    pairs = sorted(set(lots))
    if not pairs:
        return {}
    rows = await conn.execute(
        text(
            f"""
            SELECT l.* FROM {_KEYS} JOIN lots l ON l.bucket = k.bucket AND l.capture_id = k.id
            ORDER BY l.bucket, l.capture_id FOR NO KEY UPDATE OF l
            """
        ),
        {"buckets": [bucket_of(merchant) for _, merchant in pairs], "ids": [capture for capture, _ in pairs]},
    )
    return {row.capture_id: _lot(row) for row in rows}


async def due_lots(conn: Connection, now: datetime, limit: int) -> list[Lot]:
    """Return lots whose settlement delay is over."""
    rows = await conn.execute(
        text("SELECT * FROM lots WHERE NOT settled AND due_time <= :now ORDER BY due_time LIMIT :limit"),
        {"now": now, "limit": limit},
    )
    return [_lot(row) for row in rows]


async def statement(
    conn: Connection, identifier: str, *, before: int | None, limit: int, as_of: datetime | None = None
) -> list[StatementLine]:
    """Return the lines of an account, newest first; with `as_of`, those that were written by then."""
    rows = await conn.execute(
        text(
            """
            SELECT e.account_version, e.amount_minor, e.balance_after, e.record_time, t.id, t.code, t.fact_id, t.effective_time,
                   t.currency
            FROM entries e JOIN transfers t ON t.bucket = e.transfer_bucket AND t.id = e.transfer_id
            WHERE e.bucket = :bucket AND e.account_id = :account
              AND (CAST(:before AS bigint) IS NULL OR e.account_version < :before)
              AND (CAST(:as_of AS timestamptz) IS NULL OR e.record_time <= :as_of)
            ORDER BY e.account_version DESC LIMIT :limit
            """
        ),
        {"bucket": bucket_of(identifier), "account": identifier, "before": before, "limit": limit, "as_of": as_of},
    )
    return [
        StatementLine(
            version=row.account_version,
            transfer_id=row.id,
            code=row.code,
            source_id=row.fact_id,
            currency=row.currency,
            amount_minor=row.amount_minor,
            balance_after_minor=row.balance_after,
            effective_time=row.effective_time,
            record_time=row.record_time,
        )
        for row in rows
    ]


async def expired_pendings(conn: Connection, now: datetime, limit: int) -> list[str]:
    """Return pending transfers whose time is over and which still hold money."""
    rows = await conn.execute(
        text("SELECT id FROM pendings WHERE NOT closed AND expire_time <= :now ORDER BY expire_time LIMIT :limit"),
        {"now": now, "limit": limit},
    )
    return list(rows.scalars())


def _keys(ids: Iterable[str]) -> dict[str, list[Any]]:
    unique = sorted(set(ids))
    return {"buckets": [bucket_of(identifier) for identifier in unique], "ids": unique}


def _account(row: Row) -> Account:
    return Account(
        id=row.id,
        owner_id=row.owner_id,
        kind=AccountKind(row.kind),
        currency=row.currency,
        debits_posted=row.debits_posted,
        credits_posted=row.credits_posted,
        debits_pending=row.debits_pending,
        credits_pending=row.credits_pending,
        version=row.version,
    )


def transfer_of(row: Row) -> Transfer:
    """Return the transfer of a row with TRANSFER_COLUMNS."""
    return Transfer(
        id=row.id,
        debit_account_id=row.debit_account_id,
        credit_account_id=row.credit_account_id,
        amount_minor=row.amount_minor,
        currency=row.currency,
        code=row.code,
        kind=TransferKind(row.kind),
        fact_id=row.fact_id,
        effective_time=row.effective_time,
        pending_id=row.pending_id,
        forced=row.forced,
        expire_time=row.expire_time,
    )


def _lot(row: Row) -> Lot:
    return Lot(
        capture_id=row.capture_id,
        payment_id=row.payment_id,
        merchant_id=row.merchant_id,
        currency=row.currency,
        net_minor=row.net_minor,
        returned_minor=row.returned_minor,
        taken_minor=row.taken_minor,
        capture_time=row.capture_time,
        due_time=row.due_time,
        settled=row.settled,
    )
