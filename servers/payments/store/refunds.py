"""The SQL of refunds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from servers.kernel.money import Money
from servers.payments.domain import (
    REFUND,
    Payment,
    Refund,
    RefundState,
)
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_refund(conn: Connection, refund: Refund) -> None:
    """Insert a new refund."""
    conn.write(
        text(
            """
            INSERT INTO refunds (owner_id, payment_id, id, amount_minor, currency, fee_returned_minor, reason, state, metadata,
                                 version, create_time, update_time, suspense_item_id)
            VALUES (:owner_id, :payment_id, :id, :amount, :currency, :fee_returned, :reason, :state,
                    CAST(:metadata AS jsonb), :version, :create_time, :update_time, :item)
            """
        ),
        {
            "owner_id": refund.owner_id,
            "payment_id": refund.payment_id,
            "id": refund.id,
            "amount": refund.amount.amount_minor,
            "currency": refund.amount.currency,
            "fee_returned": refund.fee_returned.amount_minor,
            "reason": refund.reason,
            "state": refund.state.value,
            "metadata": json.dumps(dict(refund.metadata)),
            "version": refund.version,
            "create_time": refund.create_time,
            "update_time": refund.update_time,
            "item": refund.suspense_item_id,
        },
    )


async def refund(conn: Connection, refund_id: str, *, owner_id: str | None = None, lock: bool = False) -> Refund | None:
    """Return a refund, of one merchant where given."""
    clause = " AND owner_id = :owner_id" if owner_id is not None else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM refunds WHERE id = :id{clause}{' FOR UPDATE' if lock else ''}"),
            {"id": refund_id, "owner_id": owner_id},
        )
    ).one_or_none()
    return _refund(row) if row is not None else None


async def refunds(conn: Connection, payment: Payment, *, before: str, limit: int) -> list[Refund]:
    """Return a payment's refunds, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM refunds WHERE owner_id = :owner_id AND payment_id = :payment_id AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"owner_id": payment.owner_id, "payment_id": payment.id, "before": before, "limit": limit},
    )
    return [_refund(row) for row in rows]


async def returned_fees(conn: Connection, payment: Payment) -> int:
    """Return what a payment's refunds return of its fee, those aside that came to nothing."""
    done = await conn.execute(
        text(
            """
            SELECT coalesce(sum(fee_returned_minor), 0) FROM refunds
            WHERE owner_id = :owner_id AND payment_id = :payment_id AND state NOT IN ('FAILED', 'CANCELED')
            """
        ),
        {"owner_id": payment.owner_id, "payment_id": payment.id},
    )
    return int(done.scalar_one())


async def refunds_of_merchant(conn: Connection, owner_id: str, *, state: str, before: str, limit: int) -> list[Refund]:
    """Return a merchant's refunds, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM refunds WHERE owner_id = :owner_id AND id < :before AND (:state = '' OR state = :state)
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"owner_id": owner_id, "state": state, "before": before, "limit": limit},
    )
    return [_refund(row) for row in rows]


def advance_refund(
    conn: Connection, refund: Refund, trigger: str, *, stripe_refund_id: str = "", failure_reason: str = "",
    pending_reason: str = "", retry_time: datetime | None = None, now: datetime,
) -> Refund:  # fmt: skip
    """Walk one arrow of the refund's machine. Raises RefundStateInvalid, or ConcurrentUpdate where the version moved."""
    moved = replace(
        refund,
        state=REFUND.arrow(refund.state, trigger, refund.id).target,
        stripe_refund_id=stripe_refund_id or refund.stripe_refund_id,
        failure_reason=failure_reason,
        pending_reason=pending_reason,
        retry_time=retry_time,
        uncertain=False,
        version=refund.version + 1,
        update_time=now,
    )
    conn.write(
        text(
            """
            UPDATE refunds SET state = :state, stripe_refund_id = :stripe_id, failure_reason = :failure,
                               pending_reason = :pending, retry_time = :retry, uncertain = false, version = :version,
                               update_time = :now
            WHERE owner_id = :owner_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": moved.state.value,
            "stripe_id": moved.stripe_refund_id,
            "failure": moved.failure_reason,
            "pending": moved.pending_reason,
            "retry": moved.retry_time,
            "version": moved.version,
            "now": now,
            "owner_id": refund.owner_id,
            "id": refund.id,
            "expected": refund.version,
        },
        one_of=refund.id,
    )
    return moved


def note_refund(conn: Connection, refund: Refund, *, uncertain: bool, stripe_refund_id: str = "") -> Refund:
    """Note what is known of a refund that stays PENDING: not a change of state, so no version and no event."""
    stripe_id = stripe_refund_id or refund.stripe_refund_id
    conn.write(
        text(
            """
            UPDATE refunds SET uncertain = :uncertain, stripe_refund_id = :stripe_id
            WHERE owner_id = :owner_id AND id = :id
            """
        ),
        {"uncertain": uncertain, "stripe_id": stripe_id, "owner_id": refund.owner_id, "id": refund.id},
    )
    return replace(refund, uncertain=uncertain, stripe_refund_id=stripe_id)


async def waiting_refunds(conn: Connection, now: datetime, limit: int) -> list[Refund]:
    """Return refunds that wait for their merchant's balance and are due to be tried again."""
    rows = await conn.execute(
        text("SELECT * FROM refunds WHERE retry_time <= :now ORDER BY retry_time LIMIT :limit"),
        {"now": now, "limit": limit},
    )
    return [_refund(row) for row in rows]


def postpone_refund(conn: Connection, refund: Refund, retry_time: datetime) -> None:
    """Note when a refund that waits is tried the next time: nothing that anybody sees."""
    conn.write(
        text("UPDATE refunds SET retry_time = :retry WHERE owner_id = :owner_id AND id = :id"),
        {"retry": retry_time, "owner_id": refund.owner_id, "id": refund.id},
    )


def _refund(row: Row) -> Refund:
    return Refund(
        id=row.id,
        payment_id=row.payment_id,
        owner_id=row.owner_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        fee_returned=Money(amount_minor=row.fee_returned_minor, currency=row.currency),
        reason=row.reason,
        state=RefundState(row.state),
        stripe_refund_id=row.stripe_refund_id,
        failure_reason=row.failure_reason,
        pending_reason=row.pending_reason,
        retry_time=row.retry_time,
        uncertain=row.uncertain,
        metadata=row.metadata,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        suspense_item_id=row.suspense_item_id,
    )
