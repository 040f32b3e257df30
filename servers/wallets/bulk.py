"""What a commit of the writer reads and writes, straight to the driver (docs/adr/0011): two round trips, whatever the number of
transfers. The first locks and looks up, the second writes and commits.

Each array goes as one literal: psycopg's own dumper looks at every element of every list, which cost more than the statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

from servers.kernel.ids import bucket_of
from servers.runtime.db import Lane
from servers.runtime.sql import Statement
from servers.wallets.chain import Batch, Head
from servers.wallets.domain import Account, AccountKind, Lot, Pending, Sheet, Transfer, TransferKind

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
_HEAD: Final = "SELECT number, link, not_before FROM chains WHERE shard = %s FOR NO KEY UPDATE"
_CHAIN: Final = """
    WITH new_head AS (UPDATE chains SET number = %s, link = %s, not_before = %s WHERE shard = %s)
    INSERT INTO batches (shard, number, id, record_time, leaves, root, key_id, link) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_SAVE_PENDINGS: Final = """
    INSERT INTO pendings (bucket, id, remaining_minor, closed, expire_time)
    SELECT * FROM unnest(%s::smallint[], %s::text[], %s::bigint[], %s::boolean[], %s::timestamptz[])
    ON CONFLICT (bucket, id) DO UPDATE SET remaining_minor = excluded.remaining_minor, closed = excluded.closed
"""
_SAVE_LOTS: Final = """
    INSERT INTO lots (bucket, capture_id, payment_id, merchant_id, currency, net_minor, returned_minor, taken_minor, capture_time,
                      due_time, settled)
    SELECT * FROM unnest(%s::smallint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],
                         %s::timestamptz[], %s::timestamptz[], %s::boolean[])
    ON CONFLICT (bucket, capture_id) DO UPDATE
        SET returned_minor = excluded.returned_minor, taken_minor = excluded.taken_minor, settled = excluded.settled
"""
_BURN: Final = """
    INSERT INTO burnt (bucket, id, record_time, batch_id)
    SELECT k.bucket, k.id, %s::timestamptz, %s FROM unnest(%s::smallint[], %s::text[]) AS k(bucket, id)
    ON CONFLICT DO NOTHING
"""


async def read(
    lane: Lane, shard: str, account_ids: Iterable[str], transfer_ids: Iterable[str]
) -> tuple[Head, dict[str, Account], dict[str, Transfer], set[str]]:
    """Lock accounts, look up ids, and lock the end of the chain. Returns this end, the accounts, those ids that are written, and
    those that are burnt.

    The accounts are locked in the order of their ids, so that two writers never wait for each other in a circle. The look-up is
    a statement of its own behind the locks: its snapshot is taken when they are held, so nothing it finds missing is being written.
    """
    locked, found, head = await lane.conn.send(
        _of_ids(_LOCK, sorted(set(account_ids))), _of_ids(_LOOK_UP, list(set(transfer_ids))), (_HEAD, (shard,))
    )
    ((number, link, not_before),) = head
    accounts = {
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
        for row in locked
    }
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
        for row in found
        if row[2]
    }
    end = Head(number=number, link=bytes(link), not_before=not_before)
    return end, accounts, known, {row[0] for row in found if row[1]}


def _of_ids(statement: LiteralString, ids: Sequence[str]) -> Statement:
    return statement, (_buckets(ids), _texts(ids))


def save(sheet: Sheet, batch_id: str, event: dict[str, Any]) -> Statement:
    """Return the statement that writes transfers, entries, accounts and the event that tells of them."""
    changed = [sheet.accounts[identifier] for identifier in sorted(sheet.touched_accounts)]
    return (
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


def chain(batch: Batch) -> Statement:
    """Return the statement that puts a batch at the end of its chain."""
    head = (batch.number, batch.link, batch.record_time, batch.shard)
    row = (batch.id, batch.record_time, batch.leaves, batch.root, batch.key_id, batch.link)
    return _CHAIN, (*head, batch.shard, batch.number, *row)


def save_rest(sheet: Sheet, batch_id: str) -> Iterator[Statement]:
    """Yield the statements for what only some batches have: holds, lots, burnt ids. New holds' transfers must be written before."""
    if sheet.touched_pendings:
        yield _SAVE_PENDINGS, _pendings([sheet.pendings[identifier] for identifier in sorted(sheet.touched_pendings)])
    if sheet.touched_lots:
        yield _SAVE_LOTS, _lots([sheet.lots[capture_id] for capture_id in sorted(sheet.touched_lots)])
    if sheet.burns:
        yield _BURN, (sheet.now, batch_id, _buckets(sheet.burns), _texts(sheet.burns))


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


def _pendings(touched: Sequence[Pending]) -> tuple[str, ...]:
    return (
        _buckets(p.transfer.id for p in touched),
        _texts([p.transfer.id for p in touched]),
        _numbers(p.remaining_minor for p in touched),
        _truths(p.closed for p in touched),
        _times(p.transfer.expire_time for p in touched),
    )


def _lots(touched: Sequence[Lot]) -> tuple[str, ...]:
    return (
        _buckets(lot.merchant_id for lot in touched),
        _texts([lot.capture_id for lot in touched]),
        _texts([lot.payment_id for lot in touched]),
        _texts([lot.merchant_id for lot in touched]),
        _texts([lot.currency for lot in touched]),
        _numbers(lot.net_minor for lot in touched),
        _numbers(lot.returned_minor for lot in touched),
        _numbers(lot.taken_minor for lot in touched),
        _times(lot.capture_time for lot in touched),
        _times(lot.due_time for lot in touched),
        _truths(lot.settled for lot in touched),
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
