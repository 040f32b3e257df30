"""The SQL of reconciliation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from servers.kernel.money import Money
from servers.payments.domain import (
    RECONCILIATION_ITEM,
    BalanceTransaction,
    Break,
    ItemKind,
    ItemState,
    MatchMode,
    ReconciliationItem,
)
from servers.runtime.db import one_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far Stripe's balance transactions were pulled, and our own records looked through."""

    pulled_until: datetime
    expected_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A balance transaction whose meaning is known, to be booked in the ledger."""

    transaction: BalanceTransaction
    matched: Money
    counterpart: str
    explained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A capture or refund of ours that Stripe's balance must show."""

    owner_id: str
    kind: ItemKind
    payment_id: str
    source_id: str
    stripe_source_id: str
    amount: Money
    time: datetime


async def reconciliation_progress(conn: AsyncConnection, *, start: datetime) -> Progress:
    """Return how far it got; from `start` where it never ran."""
    await conn.execute(
        text(
            """
            INSERT INTO reconciliation_progress (id, pulled_until, expected_until) VALUES ('stripe', :start, :start)
            ON CONFLICT DO NOTHING
            """
        ),
        {"start": start},
    )
    row = (await conn.execute(text("SELECT pulled_until, expected_until FROM reconciliation_progress"))).one()
    return Progress(pulled_until=row.pulled_until, expected_until=row.expected_until)


async def advance_reconciliation(
    conn: AsyncConnection, *, pulled_until: datetime | None = None, expected_until: datetime | None = None
) -> None:
    """Note how far it got; never back."""
    await conn.execute(
        text(
            """
            UPDATE reconciliation_progress SET pulled_until = greatest(pulled_until, CAST(:pulled AS timestamptz)),
                                               expected_until = greatest(expected_until, CAST(:expected AS timestamptz))
            """
        ),
        {"pulled": pulled_until, "expected": expected_until},
    )


async def save_balance(conn: AsyncConnection, balance: Mapping[str, int], now: datetime) -> Mapping[str, int]:
    """Note Stripe's balance per currency beside the sum of the lines that were pulled. What stood there before the first line is
    the baseline. Returns by how much they differ, per currency."""
    await conn.execute(
        text(
            """
            WITH mirrored AS (
                SELECT coalesce(jsonb_object_agg(currency, net), '{}') AS sums
                FROM (SELECT currency, sum(amount_minor - fee_minor) AS net FROM balance_transactions GROUP BY currency) s),
            base AS (
                SELECT coalesce(jsonb_object_agg(b.key, CAST(b.value AS bigint) - coalesce(CAST(m.sums ->> b.key AS bigint), 0)),
                                '{}') AS sums
                FROM mirrored m, jsonb_each_text(CAST(:balance AS jsonb)) b)
            UPDATE reconciliation_progress p
            SET stripe_balance = CAST(:balance AS jsonb), mirrored_balance = mirrored.sums, balance_time = :now,
                baseline = coalesce(p.baseline, base.sums)
            FROM mirrored, base
            """
        ),
        {"balance": json.dumps(dict(balance)), "now": now},
    )
    row = (
        await conn.execute(text("SELECT stripe_balance, mirrored_balance, baseline FROM reconciliation_progress"))
    ).one()
    currencies = {*row.stripe_balance, *row.mirrored_balance, *row.baseline}
    differences = {
        c: row.stripe_balance.get(c, 0) - row.mirrored_balance.get(c, 0) - row.baseline.get(c, 0) for c in currencies
    }
    return {currency: by for currency, by in sorted(differences.items()) if by}


async def save_balance_transactions(conn: AsyncConnection, arrived: Sequence[BalanceTransaction]) -> int:
    """Store what was pulled; what is there already stays. Returns how many are new."""
    if not arrived:
        return 0
    done = await conn.execute(
        text(
            """
            INSERT INTO balance_transactions (id, type, source_id, payment_intent_id, amount_minor, fee_minor, currency,
                                              exchange_rate, create_time, state)
            SELECT id, type, source_id, intent, amount, fee, currency, rate, created, 'STORED'
            FROM unnest(CAST(:ids AS text[]), CAST(:types AS text[]), CAST(:sources AS text[]), CAST(:intents AS text[]),
                        CAST(:amounts AS bigint[]), CAST(:fees AS bigint[]), CAST(:currencies AS text[]),
                        CAST(:rates AS numeric[]), CAST(:created AS timestamptz[]))
                 AS n(id, type, source_id, intent, amount, fee, currency, rate, created)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "ids": [one.id for one in arrived],
            "types": [one.type for one in arrived],
            "sources": [one.source_id for one in arrived],
            "intents": [one.payment_intent_id for one in arrived],
            "amounts": [one.amount.amount_minor for one in arrived],
            "fees": [one.fee.amount_minor for one in arrived],
            "currencies": [one.amount.currency for one in arrived],
            "rates": [one.exchange_rate for one in arrived],
            "created": [one.create_time for one in arrived],
        },
    )
    return done.rowcount


async def stored_balance_transactions(
    conn: AsyncConnection, *, before: datetime, after: tuple[datetime, str] | None, limit: int
) -> list[tuple[datetime, str]]:
    """Return time and id of lines that nobody has judged yet, oldest first, behind the line `after`."""
    time, identifier = after if after is not None else (datetime.min.replace(tzinfo=UTC), "")
    rows = await conn.execute(
        text(
            """
            SELECT create_time, id FROM balance_transactions
            WHERE state = 'STORED' AND create_time <= :before AND (create_time, id) > (:time, :id)
            ORDER BY create_time, id LIMIT :limit
            """
        ),
        {"before": before, "time": time, "id": identifier, "limit": limit},
    )
    return [(row.create_time, row.id) for row in rows]


async def lock_stored(conn: AsyncConnection, identifier: str) -> BalanceTransaction | None:
    """Lock a line for judging; None where somebody else judges it or has."""
    row = (
        await conn.execute(
            text(
                "SELECT * FROM balance_transactions WHERE id = :id AND state = 'STORED' FOR NO KEY UPDATE SKIP LOCKED"
            ),
            {"id": identifier},
        )
    ).one_or_none()
    return _transaction(row) if row is not None else None


async def save_judgement(
    conn: AsyncConnection,
    identifier: str,
    *,
    matched: Money,
    counterpart: str,
    item: ReconciliationItem | None,
    explained: bool = False,
) -> None:
    """Note what a line means: the intent to book it so."""
    done = await conn.execute(
        text(
            """
            UPDATE balance_transactions
            SET state = 'JUDGED', matched_minor = :matched, matched_currency = :currency, counterpart = :counterpart,
                item_owner_id = :owner, item_id = :item, explained = :explained
            WHERE id = :id AND state = CASE WHEN :explained THEN 'BOOKED' ELSE 'STORED' END
            """
        ),
        {
            "id": identifier,
            "matched": matched.amount_minor,
            "currency": matched.currency,
            "counterpart": counterpart,
            "owner": item.owner_id if item is not None else "",
            "item": item.id if item is not None else "",
            "explained": explained,
        },
    )
    one_row(done.rowcount, identifier)


async def judged_lines(conn: AsyncConnection, *, limit: int) -> list[Judged]:
    """Return lines that are to be booked, oldest first."""
    rows = await conn.execute(
        text("SELECT * FROM balance_transactions WHERE state = 'JUDGED' ORDER BY create_time, id LIMIT :limit"),
        {"limit": limit},
    )
    return [
        Judged(
            transaction=_transaction(row),
            matched=Money(amount_minor=row.matched_minor, currency=row.matched_currency),
            counterpart=row.counterpart,
            explained=row.explained,
        )
        for row in rows
    ]


async def note_booked(conn: AsyncConnection, identifier: str) -> None:
    """Note that a line is in the ledger."""
    await conn.execute(
        text("UPDATE balance_transactions SET state = 'BOOKED' WHERE id = :id AND state = 'JUDGED'"),
        {"id": identifier},
    )


_CAPTURES: Final = """
    SELECT c.owner_id, 'CAPTURE' AS kind, c.payment_id, c.id AS source_id, a.charge_id AS stripe_source_id,
           c.amount_minor, c.currency, c.capture_time AS time
    FROM captures c
    JOIN attempts a ON a.owner_id = c.owner_id AND a.payment_id = c.payment_id AND a.state = 'SUCCEEDED' AND a.charge_id <> ''
    """
_REFUNDS: Final = """
    SELECT r.owner_id, 'REFUND' AS kind, r.payment_id, r.id AS source_id, r.stripe_refund_id AS stripe_source_id,
           -r.amount_minor AS amount_minor, r.currency, r.update_time AS time
    FROM refunds r
    """


async def unexpected_yet(conn: AsyncConnection, *, since: datetime, limit: int) -> list[Expectation]:
    """Return captures from cards and refunds that succeeded at Stripe, of which no item speaks yet, oldest first."""
    rows = await conn.execute(
        text(
            f"""
            SELECT * FROM ({_CAPTURES} WHERE c.capture_time >= :since
                           UNION ALL
                           {_REFUNDS} WHERE r.update_time >= :since AND r.state = 'SUCCEEDED' AND r.stripe_refund_id <> '') e
            WHERE NOT EXISTS (SELECT 1 FROM reconciliation_items i
                              WHERE i.owner_id = e.owner_id AND i.kind = e.kind AND i.source_id = e.source_id)
            ORDER BY time LIMIT :limit
            """
        ),
        {"since": since, "limit": limit},
    )
    return [_expectation(row) for row in rows]


async def expectations_of_charge(conn: AsyncConnection, charge_id: str) -> list[Expectation]:
    """Return the captures of a charge."""
    rows = await conn.execute(
        text(f"{_CAPTURES} WHERE a.charge_id = :charge ORDER BY c.capture_time, c.id"), {"charge": charge_id}
    )
    return [_expectation(row) for row in rows]


async def expectation_of_refund(conn: AsyncConnection, stripe_refund_id: str) -> Expectation | None:
    """Return our refund that has this id at Stripe."""
    row = (
        await conn.execute(text(f"{_REFUNDS} WHERE r.stripe_refund_id = :refund"), {"refund": stripe_refund_id})
    ).one_or_none()
    return _expectation(row) if row is not None else None


async def payment_of_line(conn: AsyncConnection, line: BalanceTransaction) -> tuple[str, str, bool] | None:
    """Return owner and id of the payment that a line is about, and whether something of it is still under way."""
    row = (
        await conn.execute(
            text(
                """
                SELECT p.owner_id, p.id,
                       EXISTS (SELECT 1 FROM attempts a WHERE a.owner_id = p.owner_id AND a.payment_id = p.id
                               AND a.state IN ('CREATED', 'SENT', 'PENDING', 'UNKNOWN', 'REQUIRES_ACTION', 'NEEDS_OPERATOR'))
                    OR EXISTS (SELECT 1 FROM operations o WHERE o.owner_id = p.owner_id AND o.payment_id = p.id
                               AND o.state IN ('CREATED', 'UNKNOWN', 'NEEDS_OPERATOR'))
                    OR EXISTS (SELECT 1 FROM refunds r WHERE r.owner_id = p.owner_id AND r.payment_id = p.id
                               AND r.state = 'PENDING' AND r.stripe_refund_id = '') AS open
                FROM payments p WHERE p.stripe_payment_intent_id = :intent
                """
            ),
            {"intent": line.payment_intent_id},
        )
    ).one_or_none()
    return (row.owner_id, row.id, row.open) if row is not None else None


async def items_of_source(conn: AsyncConnection, stripe_source_id: str, kind: ItemKind) -> list[ReconciliationItem]:
    """Lock the items of a charge or refund at Stripe, oldest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM reconciliation_items WHERE stripe_source_id = :source AND kind = :kind
            ORDER BY create_time, id FOR NO KEY UPDATE
            """
        ),
        {"source": stripe_source_id, "kind": kind.value},
    )
    return [_item(row) for row in rows]


async def lines_of_item(conn: AsyncConnection, item: ReconciliationItem) -> list[BalanceTransaction]:
    """Return the balance transactions of an item, oldest first."""
    rows = await conn.execute(
        text("SELECT * FROM balance_transactions WHERE item_id = :item ORDER BY create_time, id"), {"item": item.id}
    )
    return [_transaction(row) for row in rows]


async def in_suspense(conn: AsyncConnection, item: ReconciliationItem) -> Money | None:
    """Return what an item's lines put into suspense, or None where there is nothing of it."""
    row = (
        await conn.execute(
            text(
                """
                SELECT currency, sum(amount_minor - CASE WHEN matched_currency = currency THEN matched_minor ELSE 0 END) AS minor
                FROM balance_transactions
                WHERE item_id = :item AND state = 'BOOKED' AND (matched_currency = currency OR matched_minor = 0)
                GROUP BY currency
                """
            ),
            {"item": item.id},
        )
    ).one_or_none()
    return Money(amount_minor=int(row.minor), currency=row.currency) if row is not None and row.minor else None


async def insert_reconciliation_items(conn: AsyncConnection, items: Iterable[ReconciliationItem]) -> None:
    """Insert new items."""
    await conn.execute(
        text(
            """
            INSERT INTO reconciliation_items (owner_id, id, kind, state, break_type, match_mode, payment_id, source_id,
                stripe_source_id, expected_minor, expected_currency, actual_minor, actual_currency, due_time, version,
                create_time, update_time)
            VALUES (:owner_id, :id, :kind, :state, :break_type, :match_mode, :payment_id, :source_id, :stripe_source_id,
                :expected, :expected_currency, :actual, :actual_currency, :due_time, :version, :create_time, :update_time)
            """
        ),
        [_columns(item) for item in items],
    )


async def advance_reconciliation_item(
    conn: AsyncConnection, item: ReconciliationItem, trigger: str, *, now: datetime, **changes: Any
) -> ReconciliationItem:
    """Walk one arrow of the item's machine. Raises ItemStateInvalid, or ConcurrentUpdate where the version moved."""
    moved = replace(
        item,
        state=RECONCILIATION_ITEM.arrow(item.state, trigger).target,
        version=item.version + 1,
        update_time=now,
        **changes,
    )
    done = await conn.execute(
        text(
            """
            UPDATE reconciliation_items
            SET state = :state, break_type = :break_type, match_mode = :match_mode, payment_id = :payment_id,
                source_id = :source_id, expected_minor = :expected, expected_currency = :expected_currency,
                actual_minor = :actual, actual_currency = :actual_currency, reason = :reason, resolved_by = :resolved_by,
                write_off_minor = :write_off, write_off_currency = :write_off_currency, version = :version,
                update_time = :update_time
            WHERE owner_id = :owner_id AND id = :id AND version = :before
            """
        ),
        {**_columns(moved), "before": item.version},
    )
    one_row(done.rowcount, item.id)
    return moved


async def reconciliation_item(conn: AsyncConnection, item_id: str, *, lock: bool = False) -> ReconciliationItem | None:
    """Return an item."""
    suffix = " FOR NO KEY UPDATE" if lock else ""
    row = (
        await conn.execute(text(f"SELECT * FROM reconciliation_items WHERE id = :id{suffix}"), {"id": item_id})
    ).one_or_none()
    return _item(row) if row is not None else None


async def reconciliation_items(
    conn: AsyncConnection, *, state: str, kind: str, payment_id: str, before: str, limit: int
) -> list[ReconciliationItem]:
    """Return items, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM reconciliation_items
            WHERE id < :before AND (:state = '' OR state = :state) AND (:kind = '' OR kind = :kind)
              AND (:payment = '' OR payment_id = :payment)
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"before": before, "state": state, "kind": kind, "payment": payment_id, "limit": limit},
    )
    return [_item(row) for row in rows]


async def overdue_items(conn: AsyncConnection, *, now: datetime, limit: int) -> list[ReconciliationItem]:
    """Lock items whose time is over while something is still to come."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM reconciliation_items WHERE state IN ('EXPECTED', 'PARTIAL') AND due_time <= :now
            ORDER BY due_time LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
            """
        ),
        {"now": now, "limit": limit},
    )
    return [_item(row) for row in rows]


async def write_offs(conn: AsyncConnection, *, limit: int) -> list[ReconciliationItem]:
    """Return items whose write-off is decided and not in the ledger yet."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM reconciliation_items WHERE write_off_minor IS NOT NULL AND NOT write_off_booked
            ORDER BY id LIMIT :limit
            """
        ),
        {"limit": limit},
    )
    return [_item(row) for row in rows]


async def note_write_off(conn: AsyncConnection, item: ReconciliationItem) -> None:
    """Note that an item's write-off is in the ledger."""
    await conn.execute(
        text("UPDATE reconciliation_items SET write_off_booked = true WHERE owner_id = :owner_id AND id = :id"),
        {"owner_id": item.owner_id, "id": item.id},
    )


def _columns(item: ReconciliationItem) -> dict[str, Any]:
    return {
        "owner_id": item.owner_id,
        "id": item.id,
        "kind": item.kind.value,
        "state": item.state.value,
        "break_type": item.break_type.value,
        "match_mode": item.match_mode.value,
        "payment_id": item.payment_id,
        "source_id": item.source_id,
        "stripe_source_id": item.stripe_source_id,
        "expected": item.expected.amount_minor if item.expected is not None else None,
        "expected_currency": item.expected.currency if item.expected is not None else None,
        "actual": item.actual.amount_minor if item.actual is not None else None,
        "actual_currency": item.actual.currency if item.actual is not None else None,
        "due_time": item.due_time,
        "reason": item.reason,
        "resolved_by": item.resolved_by,
        "write_off": item.write_off.amount_minor if item.write_off is not None else None,
        "write_off_currency": item.write_off.currency if item.write_off is not None else None,
        "version": item.version,
        "create_time": item.create_time,
        "update_time": item.update_time,
    }


def _money(minor: int | None, currency: str | None) -> Money | None:
    return Money(amount_minor=minor, currency=currency) if minor is not None and currency is not None else None


def _item(row: Row[Any]) -> ReconciliationItem:
    return ReconciliationItem(
        id=row.id,
        owner_id=row.owner_id,
        kind=ItemKind(row.kind),
        state=ItemState(row.state),
        break_type=Break(row.break_type),
        match_mode=MatchMode(row.match_mode),
        payment_id=row.payment_id,
        source_id=row.source_id,
        stripe_source_id=row.stripe_source_id,
        expected=_money(row.expected_minor, row.expected_currency),
        actual=_money(row.actual_minor, row.actual_currency),
        due_time=row.due_time,
        reason=row.reason,
        resolved_by=row.resolved_by,
        write_off=_money(row.write_off_minor, row.write_off_currency),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _transaction(row: Row[Any]) -> BalanceTransaction:
    return BalanceTransaction(
        id=row.id,
        type=row.type,
        source_id=row.source_id,
        payment_intent_id=row.payment_intent_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        fee=Money(amount_minor=row.fee_minor, currency=row.currency),
        exchange_rate=row.exchange_rate,
        create_time=row.create_time,
    )


def _expectation(row: Row[Any]) -> Expectation:
    return Expectation(
        owner_id=row.owner_id,
        kind=ItemKind(row.kind),
        payment_id=row.payment_id,
        source_id=row.source_id,
        stripe_source_id=row.stripe_source_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        time=row.time,
    )
