"""The SQL of reconciliation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

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
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A capture, suspense item or refund of ours that Stripe's balance must show."""

    owner_id: str
    kind: ItemKind
    payment_id: str
    source_id: str
    stripe_source_id: str
    amount: Money
    time: datetime


# A capture out of suspense moves nothing at Stripe: the money came as the suspense item, of an attempt that may have ended
# otherwise.
_CAPTURES: Final = """
    SELECT c.owner_id, 'CAPTURE' AS kind, c.payment_id, c.id AS source_id, a.charge_id AS stripe_source_id,
           c.amount_minor, c.currency, c.capture_time AS time
    FROM captures c
    JOIN attempts a ON a.owner_id = c.owner_id AND a.payment_id = c.payment_id AND a.state = 'SUCCEEDED' AND a.wallet_id = ''
    WHERE c.suspense_item_id = ''
    UNION ALL
    SELECT i.owner_id, 'CAPTURE', i.payment_id, i.id, coalesce(a.charge_id, ''), i.amount_minor, i.currency, i.create_time
    FROM suspense_items i
    LEFT JOIN LATERAL (SELECT charge_id FROM attempts
                       WHERE owner_id = i.owner_id AND payment_id = i.payment_id AND charge_id <> ''
                       ORDER BY id DESC LIMIT 1) a ON true
    """
_REFUNDS: Final = """
    SELECT r.owner_id, 'REFUND' AS kind, r.payment_id, r.id AS source_id, r.stripe_refund_id AS stripe_source_id,
           -r.amount_minor AS amount_minor, r.currency, r.update_time AS time
    FROM refunds r
    """
_MOVEMENTS: Final = """
    SELECT m.owner_id, 'DISPUTE' AS kind, d.payment_id, m.id AS source_id, d.stripe_dispute_id AS stripe_source_id,
           m.amount_minor, m.currency, m.create_time AS time
    FROM dispute_movements m JOIN disputes d ON d.owner_id = m.owner_id AND d.id = m.dispute_id
    """


async def unexpected_yet(conn: Connection, *, since: datetime, limit: int) -> list[Expectation]:
    """Return captures from cards, money in suspense, refunds that succeeded at Stripe and what moved for disputes, of which no item
    speaks yet, oldest first."""
    rows = await conn.execute(
        text(
            f"""
            SELECT * FROM (SELECT * FROM ({_CAPTURES}) c WHERE c.time >= :since AND c.stripe_source_id <> ''
                           UNION ALL
                           {_REFUNDS} WHERE r.update_time >= :since AND r.state = 'SUCCEEDED' AND r.stripe_refund_id <> ''
                           UNION ALL
                           {_MOVEMENTS} WHERE m.create_time >= :since) e
            WHERE NOT EXISTS (SELECT 1 FROM reconciliation_items i
                              WHERE i.owner_id = e.owner_id AND i.kind = e.kind AND i.source_id = e.source_id
                                AND i.source_id <> '')
            ORDER BY time LIMIT :limit
            """
        ),
        {"since": since, "limit": limit},
    )
    return [_expectation(row) for row in rows]


async def expectations_of_charge(conn: Connection, line: BalanceTransaction) -> list[Expectation]:
    """Return what was captured of the payment that a charge's line is about, oldest first."""
    found = await conn.execute(
        text(
            """
            SELECT owner_id, id FROM payments WHERE stripe_payment_intent_id = :intent AND :intent <> ''
            UNION SELECT owner_id, payment_id FROM attempts WHERE charge_id = :charge AND charge_id <> ''
            """
        ),
        {"intent": line.payment_intent_id, "charge": line.source_id},
    )
    payment = found.one_or_none()
    if payment is None:
        return []
    rows = await conn.execute(
        text(
            f"SELECT * FROM ({_CAPTURES}) e WHERE owner_id = :owner AND payment_id = :payment ORDER BY time, source_id"
        ),
        {"owner": payment.owner_id, "payment": payment.id},
    )
    return [replace(_expectation(row), stripe_source_id=line.source_id) for row in rows]


async def expectation_of_refund(conn: Connection, stripe_refund_id: str) -> Expectation | None:
    """Return our refund that has this id at Stripe."""
    named = text(f"{_REFUNDS} WHERE r.stripe_refund_id = :refund AND r.stripe_refund_id <> ''")
    row = (await conn.execute(named, {"refund": stripe_refund_id})).one_or_none()
    return _expectation(row) if row is not None else None


async def expectation_of_movement(conn: Connection, line_id: str) -> Expectation | None:
    """Return what one of our disputes tells of a balance transaction."""
    row = (await conn.execute(text(f"{_MOVEMENTS} WHERE m.id = :id"), {"id": line_id})).one_or_none()
    return _expectation(row) if row is not None else None


async def items_of_source(conn: Connection, stripe_source_id: str, kind: ItemKind) -> list[ReconciliationItem]:
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


async def insert_reconciliation_items(conn: Connection, items: Iterable[ReconciliationItem]) -> None:
    """Insert new items."""
    await conn.execute_each(
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


def advance_reconciliation_item(
    conn: Connection, item: ReconciliationItem, trigger: str, *, now: datetime, **changes: Any
) -> ReconciliationItem:
    """Walk one arrow of the item's machine. Raises ItemStateInvalid, or ConcurrentUpdate where the version moved."""
    moved = replace(
        item,
        state=RECONCILIATION_ITEM.arrow(item.state, trigger, item.id).target,
        version=item.version + 1,
        update_time=now,
        **changes,
    )
    conn.write(
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
        one_of=item.id,
    )
    return moved


async def reconciliation_item(conn: Connection, item_id: str, *, lock: bool = False) -> ReconciliationItem | None:
    """Return an item."""
    suffix = " FOR NO KEY UPDATE" if lock else ""
    row = (
        await conn.execute(text(f"SELECT * FROM reconciliation_items WHERE id = :id{suffix}"), {"id": item_id})
    ).one_or_none()
    return _item(row) if row is not None else None


async def reconciliation_items(
    conn: Connection, *, state: str, kind: str, payment_id: str, before: str, limit: int
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


async def overdue_items(conn: Connection, *, now: datetime, limit: int) -> list[ReconciliationItem]:
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


async def write_offs(conn: Connection, *, limit: int) -> list[ReconciliationItem]:
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


def note_write_off(conn: Connection, item: ReconciliationItem) -> None:
    """Note that an item's write-off is in the ledger."""
    conn.write(
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


def _item(row: Row) -> ReconciliationItem:
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


def _expectation(row: Row) -> Expectation:
    return Expectation(
        owner_id=row.owner_id,
        kind=ItemKind(row.kind),
        payment_id=row.payment_id,
        source_id=row.source_id,
        stripe_source_id=row.stripe_source_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        time=row.time,
    )
