"""The SQL of money in suspense and of what staff decided."""

from __future__ import annotations

from datetime import datetime

from servers.kernel.money import Money
from servers.payments.domain import Payment, StaffAction, SuspenseCause, SuspenseItem
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_suspense_item(conn: Connection, payment: Payment, item: SuspenseItem) -> None:
    """Insert a suspense item of a payment."""
    conn.write(
        text(
            """
            INSERT INTO suspense_items (owner_id, payment_id, id, amount_minor, currency, cause, create_time)
            VALUES (:owner_id, :payment_id, :id, :amount, :currency, :cause, :create_time)
            """
        ),
        {
            "owner_id": payment.owner_id,
            "payment_id": payment.id,
            "id": item.id,
            "amount": item.amount.amount_minor,
            "currency": item.amount.currency,
            "cause": item.cause.value,
            "create_time": item.create_time,
        },
    )


async def old_suspense(conn: Connection, before: datetime) -> list[str]:
    """Return the items that were found before a time and are neither accepted nor back, nor on their way back."""
    rows = await conn.execute(
        text(
            """
            SELECT i.id FROM suspense_items i
            LEFT JOIN captures c ON c.owner_id = i.owner_id AND c.suspense_item_id = i.id AND c.suspense_item_id <> ''
            LEFT JOIN refunds r ON r.owner_id = i.owner_id AND r.suspense_item_id = i.id AND r.suspense_item_id <> ''
            WHERE i.create_time < :before AND c.id IS NULL AND (r.id IS NULL OR r.state IN ('FAILED', 'CANCELED'))
            ORDER BY i.create_time LIMIT 100
            """
        ),
        {"before": before},
    )
    return list(rows.scalars())


def insert_staff_action(conn: Connection, action: StaffAction) -> None:
    """Append what somebody of the staff decided, in the transaction that does it."""
    conn.write(
        text(
            """
            INSERT INTO staff_actions (owner_id, id, actor_id, actor_role, action, resource_id, decision, reason, request_id,
                                       create_time)
            VALUES (:owner_id, :id, :actor_id, :actor_role, :action, :resource_id, :decision, :reason, :request_id,
                    :create_time)
            """
        ),
        {
            "owner_id": action.owner_id,
            "id": action.id,
            "actor_id": action.actor_id,
            "actor_role": action.actor_role,
            "action": action.action,
            "resource_id": action.resource_id,
            "decision": action.decision,
            "reason": action.reason,
            "request_id": action.request_id,
            "create_time": action.create_time,
        },
    )


def item_of(row: Row) -> SuspenseItem:
    """Return the suspense item of a row."""
    return SuspenseItem(
        id=row.id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        cause=SuspenseCause(row.cause),
        create_time=row.create_time,
    )
