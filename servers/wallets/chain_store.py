"""The SQL of the ledger's chain: its batches, their lines, and the roots of its periods."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from servers.kernel.ids import bucket_of
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text
from servers.wallets.chain import Batch, Root
from servers.wallets.domain import Entry, Transfer
from servers.wallets.store import TRANSFER_COLUMNS, transfer_of

_ROOT_COLUMNS = "shard, start_time, end_time, first_number, last_number, root, object, publish_time"


async def unpublished_since(conn: Connection, shard: str, number: int) -> datetime | None:
    """Return when the first batch after `number` was recorded, or None where there is none."""
    rows = await conn.execute(
        text("SELECT record_time FROM batches WHERE shard = :shard AND number = :number"),
        {"shard": shard, "number": number + 1},
    )
    found: datetime | None = rows.scalar()
    return found


async def close_period(conn: Connection, shard: str, end_time: datetime) -> None:
    """Let no batch be recorded before `end_time` any more: whoever writes one holds the same row's lock, and reads it there."""
    await conn.execute(
        text("UPDATE chains SET not_before = greatest(not_before, :end_time) WHERE shard = :shard"),
        {"shard": shard, "end_time": end_time},
    )


async def batches(
    conn: Connection,
    shard: str,
    *,
    after: int,
    before_time: datetime | None = None,
    last: int | None = None,
    limit: int,
) -> list[Batch]:
    """Return batches behind the number `after`, recorded before `before_time`, up to the number `last`, in their order."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM batches WHERE shard = :shard AND number > :after
              AND (CAST(:before AS timestamptz) IS NULL OR record_time < :before)
              AND (CAST(:last AS bigint) IS NULL OR number <= :last)
            ORDER BY number LIMIT :limit
            """
        ),
        {"shard": shard, "after": after, "before": before_time, "last": last, "limit": limit},
    )
    return [_batch(row) for row in rows]


async def last_root(conn: Connection, shard: str) -> Root | None:
    """Return the newest root of a shard."""
    rows = await conn.execute(
        text(f"SELECT {_ROOT_COLUMNS} FROM chain_roots WHERE shard = :shard ORDER BY start_time DESC LIMIT 1"),
        {"shard": shard},
    )
    row = rows.one_or_none()
    return _root(row) if row is not None else None


async def roots(conn: Connection, shard: str, *, before: datetime | None, limit: int) -> list[Root]:
    """Return roots of periods that began before `before`, newest first."""
    rows = await conn.execute(
        text(
            f"""
            SELECT {_ROOT_COLUMNS} FROM chain_roots WHERE shard = :shard
              AND (CAST(:before AS timestamptz) IS NULL OR start_time < :before)
            ORDER BY start_time DESC LIMIT :limit
            """
        ),
        {"shard": shard, "before": before, "limit": limit},
    )
    return [_root(row) for row in rows]


async def insert_root(conn: Connection, root: Root) -> None:
    """Note a root that is published. A second process that published the same one finds it noted."""
    await conn.execute(
        text(
            f"""
            INSERT INTO chain_roots ({_ROOT_COLUMNS})
            VALUES (:shard, :start_time, :end_time, :first, :last, :root, :object, :publish_time) ON CONFLICT DO NOTHING
            """
        ),
        {
            "shard": root.shard,
            "start_time": root.start_time,
            "end_time": root.end_time,
            "first": root.first_number,
            "last": root.last_number,
            "root": root.root,
            "object": root.object,
            "publish_time": root.publish_time,
        },
    )


async def batches_of_lines(
    conn: Connection, account: str, *, start_time: datetime, end_time: datetime, before: int | None, limit: int
) -> list[tuple[int, str]]:
    """Return (version, batch id) of an account's lines that were recorded in [start_time, end_time), newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT e.account_version, t.batch_id
            FROM entries e JOIN transfers t ON t.bucket = e.transfer_bucket AND t.id = e.transfer_id
            WHERE e.bucket = :bucket AND e.account_id = :account
              AND (CAST(:before AS bigint) IS NULL OR e.account_version < :before)
              AND e.record_time >= :start_time AND e.record_time < :end_time
            ORDER BY e.account_version DESC LIMIT :limit
            """
        ),
        {
            "bucket": bucket_of(account),
            "account": account,
            "before": before,
            "start_time": start_time,
            "end_time": end_time,
            "limit": limit,
        },
    )
    return [(row.account_version, row.batch_id) for row in rows]


async def batches_by_id(conn: Connection, ids: Sequence[str]) -> list[Batch]:
    """Return batches, in their order."""
    rows = await conn.execute(
        text("SELECT * FROM batches WHERE id = ANY(CAST(:ids AS text[])) ORDER BY number"), {"ids": sorted(set(ids))}
    )
    return [_batch(row) for row in rows]


async def contents(conn: Connection, batch: Batch) -> tuple[list[tuple[Transfer, Entry | None]], list[str]]:
    """Return what a batch wrote, in the order of its leaves: transfers with each of their entries, and the ids that it burnt."""
    written = await conn.execute(
        text(
            f"""
            SELECT {TRANSFER_COLUMNS}, e.account_id AS entry_account_id, e.account_version, e.amount_minor AS entry_minor,
                   e.balance_after, e.available_after, e.forced AS entry_forced
            FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id
            WHERE t.batch_id = :batch ORDER BY t.id COLLATE "C", e.amount_minor
            """
        ),
        {"batch": batch.id},
    )
    burnt = await conn.execute(
        text('SELECT id FROM burnt WHERE batch_id = :batch ORDER BY id COLLATE "C"'), {"batch": batch.id}
    )
    return [(transfer_of(row), _entry(row)) for row in written], list(burnt.scalars())


def _entry(row: Row) -> Entry | None:
    if row.entry_account_id is None:
        return None
    return Entry(
        account_id=row.entry_account_id,
        version=row.account_version,
        transfer_id=row.id,
        amount_minor=row.entry_minor,
        balance_after=row.balance_after,
        available_after=row.available_after,
        forced=row.entry_forced,
    )


def _batch(row: Row) -> Batch:
    return Batch(
        shard=row.shard,
        number=row.number,
        id=row.id,
        record_time=row.record_time,
        leaves=row.leaves,
        root=bytes(row.root),
        key_id=row.key_id,
        link=bytes(row.link),
    )


def _root(row: Row) -> Root:
    return Root(
        shard=row.shard,
        start_time=row.start_time,
        end_time=row.end_time,
        first_number=row.first_number,
        last_number=row.last_number,
        root=bytes(row.root),
        object=row.object,
        publish_time=row.publish_time,
    )
