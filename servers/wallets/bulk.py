"""The statements that every commit of the writer runs, straight to the driver: two reads and one write, whatever the number of
transfers.

Each array goes as one literal: psycopg's own dumper looks at every element of every list, which cost more than the statement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import psycopg

from servers.kernel.ids import bucket_of
from servers.wallets.domain import Account, AccountKind, Sheet, Transfer, TransferKind

Driver = psycopg.AsyncConnection[Any]

_LOCK: Final = """
    SELECT a.id, a.owner_id, a.kind, a.currency, a.debits_posted, a.credits_posted, a.debits_pending, a.credits_pending,
           a.version
    FROM unnest(%s::smallint[], %s::text[]) AS k(bucket, id) JOIN accounts a ON a.bucket = k.bucket AND a.id = k.id
    ORDER BY a.bucket, a.id FOR NO KEY UPDATE OF a
"""
_LOOK_UP: Final = """
    SELECT k.id, b.id IS NOT NULL, t.id IS NOT NULL, t.debit_account_id, t.credit_account_id, t.amount_minor, t.currency,
           t.code, t.kind, t.fact_id, t.effective_time, t.pending_id, t.forced, t.expire_time
    FROM unnest(%s::smallint[], %s::text[]) AS k(bucket, id)
    LEFT JOIN transfers t ON t.bucket = k.bucket AND t.id = k.id
    LEFT JOIN burnt b ON b.bucket = k.bucket AND b.id = k.id
    WHERE t.id IS NOT NULL OR b.id IS NOT NULL
"""
_SAVE: Final = """
    WITH new_transfers AS (
        INSERT INTO transfers (bucket, id, debit_account_id, credit_account_id, amount_minor, currency, code, kind,
                               pending_id, fact_id, forced, expire_time, effective_time, record_time, batch_id)
        SELECT *, %s::timestamptz, %s
        FROM unnest(%s::smallint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],
                    %s::text[], %s::text[], %s::text[], %s::boolean[], %s::timestamptz[], %s::timestamptz[])),
    new_entries AS (
        INSERT INTO entries (bucket, account_id, account_version, transfer_bucket, transfer_id, amount_minor,
                             balance_after, available_after, forced, record_time)
        SELECT *, %s::timestamptz
        FROM unnest(%s::smallint[], %s::text[], %s::bigint[], %s::smallint[], %s::text[], %s::bigint[], %s::bigint[],
                    %s::bigint[], %s::boolean[])),
    new_event AS (
        INSERT INTO outbox (event_id, topic, root_id, type, subject, version, occur_time, traceparent, data)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s))
    UPDATE accounts a SET debits_posted = n.dp, credits_posted = n.cp, debits_pending = n.dh, credits_pending = n.ch,
                          version = n.version
    FROM unnest(%s::smallint[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
         AS n(bucket, id, dp, cp, dh, ch, version)
    WHERE a.bucket = n.bucket AND a.id = n.id
"""


async def lock_accounts(driver: Driver, ids: Iterable[str]) -> dict[str, Account]:
    """Lock accounts in the order of their ids, so that two writers never wait for each other in a circle."""
    unique = sorted(set(ids))
    if not unique:
        return {}
    rows = await (await driver.execute(_LOCK, (_buckets(unique), _texts(unique)))).fetchall()
    return {
        row[0]: Account(
            id=row[0],
            owner_id=row[1],
            kind=AccountKind(row[2]),
            currency=row[3],
            debits_posted=row[4],
            credits_posted=row[5],
            debits_pending=row[6],
            credits_pending=row[7],
            version=row[8],
        )
        for row in rows
    }


async def look_up(driver: Driver, ids: Iterable[str]) -> tuple[dict[str, Transfer], set[str]]:
    """Return those of `ids` that are written, and those that are burnt."""
    unique = list(set(ids))
    if not unique:
        return {}, set()
    rows = await (await driver.execute(_LOOK_UP, (_buckets(unique), _texts(unique)))).fetchall()
    known = {
        row[0]: Transfer(
            id=row[0],
            debit_account_id=row[3],
            credit_account_id=row[4],
            amount_minor=row[5],
            currency=row[6],
            code=row[7],
            kind=TransferKind(row[8]),
            fact_id=row[9],
            effective_time=row[10],
            pending_id=row[11],
            forced=row[12],
            expire_time=row[13],
        )
        for row in rows
        if row[2]
    }
    return known, {row[0] for row in rows if row[1]}


async def save(driver: Driver, sheet: Sheet, touched: Collection[str], batch_id: str, event: dict[str, Any]) -> None:
    """Write transfers, entries, accounts and the event that tells of them."""
    changed = [sheet.accounts[identifier] for identifier in sorted(touched)]
    await driver.execute(
        _SAVE,
        (
            sheet.now,
            batch_id,
            *_transfers(sheet.written),
            sheet.now,
            *_entries(sheet),
            *(event["event_id"], event["topic"], event["root_id"], event["type"], event["subject"], event["version"]),
            *(event["occur_time"], event["traceparent"], event["data"]),
            *_accounts(changed),
        ),
    )


def _transfers(written: Sequence[Transfer]) -> tuple[str, ...]:
    return (
        _buckets(t.id for t in written),
        _texts([t.id for t in written]),
        _texts([t.debit_account_id for t in written]),
        _texts([t.credit_account_id for t in written]),
        _numbers(t.amount_minor for t in written),
        _texts([t.currency for t in written]),
        _texts([t.code for t in written]),
        _texts([t.kind.value for t in written]),
        _texts([t.pending_id for t in written]),
        _texts([t.fact_id for t in written]),
        _truths(t.forced for t in written),
        _times(t.expire_time for t in written),
        _times(t.effective_time for t in written),
    )


def _entries(sheet: Sheet) -> tuple[str, ...]:
    entries = sheet.entries
    return (
        _buckets(e.account_id for e in entries),
        _texts([e.account_id for e in entries]),
        _numbers(e.version for e in entries),
        _buckets(e.transfer_id for e in entries),
        _texts([e.transfer_id for e in entries]),
        _numbers(e.amount_minor for e in entries),
        _numbers(e.balance_after for e in entries),
        _numbers(e.available_after for e in entries),
        _truths(e.forced for e in entries),
    )


def _accounts(changed: Sequence[Account]) -> tuple[str, ...]:
    return (
        _buckets(a.id for a in changed),
        _texts([a.id for a in changed]),
        _numbers(a.debits_posted for a in changed),
        _numbers(a.credits_posted for a in changed),
        _numbers(a.debits_pending for a in changed),
        _numbers(a.credits_pending for a in changed),
        _numbers(a.version for a in changed),
    )


def _texts(values: Sequence[str]) -> str:
    """Return an array literal; every element is quoted, so that none reads as NULL and none is lost for being empty."""
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * (len(values) - 1):
        joined = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{joined}"}}' if values else "{}"


def _numbers(values: Iterable[int]) -> str:
    return f"{{{','.join(map(str, values))}}}"


def _buckets(ids: Iterable[str]) -> str:
    return _numbers(map(bucket_of, ids))


def _truths(values: Iterable[bool]) -> str:
    return f"{{{','.join('t' if value else 'f' for value in values)}}}"


def _times(values: Iterable[datetime | None]) -> str:
    return f"{{{','.join('NULL' if value is None else value.isoformat() for value in values)}}}"
