"""The SQL of captures and cancels while they are carried out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from servers.payments.domain import OPERATION, Operation, OperationKind, OperationState
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_operation(conn: Connection, operation: Operation) -> None:
    """Insert a new operation. The partial unique index refuses a second open one of the payment."""
    conn.write(
        text(
            """
            INSERT INTO operations (owner_id, payment_id, id, kind, amount_minor, final, captured_before_minor, reason,
                                    state, create_time, update_time)
            VALUES (:owner_id, :payment_id, :id, :kind, :amount, :final, :before, :reason, :state, :create_time,
                    :create_time)
            """
        ),
        {
            "owner_id": operation.owner_id,
            "payment_id": operation.payment_id,
            "id": operation.id,
            "kind": operation.kind.value,
            "amount": operation.amount_minor,
            "final": operation.final,
            "before": operation.captured_before_minor,
            "reason": operation.reason,
            "state": operation.state.value,
            "create_time": operation.create_time,
        },
    )


async def operation_by_id(conn: Connection, operation_id: str) -> Operation:
    """Return an operation by its id."""
    return operation_of(
        (await conn.execute(text("SELECT * FROM operations WHERE id = :id"), {"id": operation_id})).one()
    )


def advance_operation(
    conn: Connection, operation: Operation, trigger: str, *, now: datetime, failure_code: str = ""
) -> Operation:
    """Walk one arrow of the operation's machine; its payment's row is locked by the caller. Raises ConcurrentUpdate."""
    target = OPERATION.arrow(operation.state, trigger, operation.payment_id).target
    conn.write(
        text(
            """
            UPDATE operations SET state = :state, failure_code = :failure, update_time = :now
            WHERE owner_id = :owner_id AND id = :id AND state = :expected
            """
        ),
        {
            "state": target.value,
            "failure": failure_code,
            "now": now,
            "owner_id": operation.owner_id,
            "id": operation.id,
            "expected": operation.state.value,
        },
        one_of=operation.id,
    )
    return replace(operation, state=target, failure_code=failure_code, update_time=now)


def operation_of(row: Row) -> Operation:
    """Return the operation of a row."""
    return Operation(
        id=row.id,
        payment_id=row.payment_id,
        owner_id=row.owner_id,
        kind=OperationKind(row.kind),
        amount_minor=row.amount_minor,
        final=row.final,
        captured_before_minor=row.captured_before_minor,
        reason=row.reason,
        failure_code=row.failure_code,
        state=OperationState(row.state),
        create_time=row.create_time,
        update_time=row.update_time,
    )
