"""The SQL of payments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from servers.kernel.money import Money
from servers.payments.domain import (
    PAYMENT,
    Attempt,
    CaptureMethod,
    Payment,
    PaymentState,
    Purpose,
    Review,
    ReviewState,
)
from servers.payments.store.attempts import attempt_by_id, attempt_of, capture_of
from servers.payments.store.operations import operation_of
from servers.payments.store.rows import record
from servers.payments.store.suspense import item_of
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


async def insert_payment(conn: Connection, payment: Payment) -> bool:
    """Insert a new payment. False where it is there: a top-up's payment, whose id follows from the top-up's, was made at once by
    somebody else, and is committed by now."""
    done = await conn.execute(
        text(
            """
            INSERT INTO payments (owner_id, id, customer_id, purpose, top_up_id, payment_method_id, amount_minor, currency, state,
                                  capture_method, capture_deadline, statement_descriptor_suffix, description, metadata, version,
                                  create_time, update_time)
            VALUES (:owner_id, :id, :customer_id, :purpose, :top_up_id, :method, :amount, :currency, :state, :capture_method,
                    :deadline, :suffix, :description, CAST(:metadata AS jsonb), :version, :create_time, :update_time)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "owner_id": payment.owner_id,
            "id": payment.id,
            "customer_id": payment.customer_id,
            "purpose": payment.purpose.value,
            "top_up_id": payment.top_up_id,
            "method": payment.payment_method_id,
            "suffix": payment.statement_descriptor_suffix,
            "amount": payment.amount.amount_minor,
            "currency": payment.amount.currency,
            "state": payment.state.value,
            "capture_method": payment.capture_method.value,
            "deadline": payment.capture_deadline,
            "description": payment.description,
            "metadata": json.dumps(dict(payment.metadata)),
            "version": payment.version,
            "create_time": payment.create_time,
            "update_time": payment.update_time,
        },
    )
    return bool(done.rowcount)


async def payment(
    conn: Connection,
    payment_id: str,
    *,
    owner_id: str | None = None,
    customer_id: str | None = None,
    lock: bool = False,
) -> Payment | None:
    """Return a payment with its newest attempt and captures, if it belongs to the merchant or the customer asked for."""
    clauses = ["p.id = :id"]
    if owner_id is not None:
        clauses.append("p.owner_id = :owner_id")
    if customer_id is not None:
        clauses.append("p.customer_id = :customer_id")
    values = {"id": payment_id, "owner_id": owner_id, "customer_id": customer_id}
    return _one(await _found(conn, f"payments p WHERE {' AND '.join(clauses)}", values, lock=lock))


async def payment_of_attempt(conn: Connection, attempt_id: str, *, lock: bool = False) -> tuple[Payment, Attempt]:
    """Return the payment that an attempt belongs to, locked where asked for, and the attempt as it is under that lock."""
    (payment,) = await _found(conn, f"{_OF_ATTEMPT} WHERE a.id = :id", {"id": attempt_id}, lock=lock)
    latest = payment.latest_attempt
    mine = latest if latest is not None and latest.id == attempt_id else await attempt_by_id(conn, attempt_id)
    return payment, mine


async def payment_by_intent(conn: Connection, intent_id: str, *, lock: bool = False) -> Payment | None:
    """Return the payment that a Stripe PaymentIntent carries out."""
    clauses = "payments p WHERE p.stripe_payment_intent_id = :intent"
    return _one(await _found(conn, clauses, {"intent": intent_id}, lock=lock))


async def payment_by_charge(conn: Connection, charge_id: str) -> Payment | None:
    """Return the payment that a charge of Stripe's belongs to."""
    return _one(
        await _found(conn, f"{_OF_ATTEMPT} WHERE a.charge_id = :charge AND a.charge_id <> ''", {"charge": charge_id})
    )


async def ended_windows(conn: Connection, now: datetime, limit: int) -> list[Payment]:
    """Return payments whose authorization should have ended, those that ended first first."""
    clauses = """payments p
        WHERE p.state IN ('REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED') AND p.capture_before_time <= :now
        ORDER BY p.capture_before_time LIMIT :limit"""
    return await _found(conn, clauses, {"now": now, "limit": limit})


async def due_payments(conn: Connection, now: datetime, limit: int) -> list[Payment]:
    """Return payments that the sweep has something to do with, those that have waited longest first."""
    clauses = "payments p WHERE p.due_time <= :now ORDER BY p.due_time LIMIT :limit"
    return await _found(conn, clauses, {"now": now, "limit": limit})


def postpone_payment(conn: Connection, payment: Payment, due_time: datetime) -> Payment:
    """Note when the sweep looks at a payment the next time: nothing that anybody sees."""
    conn.write(
        text("UPDATE payments SET due_time = :due WHERE owner_id = :owner_id AND id = :id"),
        {"due": due_time, "owner_id": payment.owner_id, "id": payment.id},
    )
    return replace(payment, due_time=due_time)


async def payments(
    conn: Connection,
    *,
    owner_id: str | None,
    customer_id: str | None,
    state: str,
    time_from: datetime | None,
    time_to: datetime | None,
    before: str,
    limit: int,
) -> list[Payment]:
    """Return payments of a merchant or a customer, newest first."""
    owner = "p.owner_id = :owner" if owner_id is not None else "p.customer_id = :owner"
    clauses = f"""payments p WHERE {owner} AND p.id < :before AND (:state = '' OR p.state = :state)
          AND (CAST(:time_from AS timestamptz) IS NULL OR p.create_time >= :time_from)
          AND (CAST(:time_to AS timestamptz) IS NULL OR p.create_time < :time_to)
        ORDER BY p.id DESC LIMIT :limit"""
    values = {
        "owner": owner_id if owner_id is not None else customer_id,
        "before": before,
        "state": state,
        "time_from": time_from,
        "time_to": time_to,
        "limit": limit,
    }
    return await _found(conn, clauses, values)


def advance(conn: Connection, payment: Payment, trigger: str, *, now: datetime, **changes: Any) -> Payment:
    """Walk one arrow of the payment's machine. Raises PaymentStateInvalid, or ConcurrentUpdate where the version moved."""
    target = PAYMENT.arrow(payment.state, trigger, payment.id).target
    if target in PAYMENT.terminal:
        changes["due_time"] = None
    return _write(conn, payment, now, state=target, **changes)


def reserve_capture(conn: Connection, payment: Payment, amount_minor: int, now: datetime) -> Payment:
    """Move a capture's amount from what is capturable to what is pending; its row is locked by the caller, and the constraints
    refuse what the caller did not check. Raises ConcurrentUpdate."""
    return _write(
        conn,
        payment,
        now,
        capturable_minor=payment.capturable_minor - amount_minor,
        capture_pending_minor=payment.capture_pending_minor + amount_minor,
    )


def release_capture(conn: Connection, payment: Payment, amount_minor: int, now: datetime) -> Payment:
    """Take a reservation back: the capture did not take place. Raises ConcurrentUpdate."""
    return reserve_capture(conn, payment, -amount_minor, now)


def touch(conn: Connection, payment: Payment, now: datetime) -> Payment:
    """Raise the version of a payment of which something else than its row has changed. Raises ConcurrentUpdate."""
    return _write(conn, payment, now)


def _write(conn: Connection, payment: Payment, now: datetime, **changes: Any) -> Payment:
    moved = replace(payment, version=payment.version + 1, update_time=now, **changes)
    review = moved.review
    columns = {
        "state": moved.state.value,
        "captured_minor": moved.captured_minor,
        "capturable_minor": moved.capturable_minor,
        "capture_pending_minor": moved.capture_pending_minor,
        "overcapture_minor": moved.overcapture_minor,
        "multicapture": moved.multicapture,
        "capture_before_time": moved.capture_before_time,
        "due_time": moved.due_time,
        "cancellation_reason": moved.cancellation_reason,
        "review_state": review.state.value if review else "",
        "review_reasons": list(review.reasons) if review else [],
        "review_expire_time": review.expire_time if review else None,
    }
    return _update(conn, moved, columns)


def change_details(conn: Connection, payment: Payment, now: datetime, **changes: Any) -> Payment:
    """Write what a merchant may change of a payment, whatever its state. Raises ConcurrentUpdate."""
    moved = replace(payment, version=payment.version + 1, update_time=now, **changes)
    columns = {
        "description": moved.description,
        "metadata": Jsonb(dict(moved.metadata)),
        "statement_descriptor_suffix": moved.statement_descriptor_suffix,
        "capture_deadline": moved.capture_deadline,
        "due_time": moved.due_time,
    }
    return _update(conn, moved, columns)


def _update(conn: Connection, moved: Payment, columns: Mapping[str, object]) -> Payment:
    """Write columns of the version before `moved`. Raises ConcurrentUpdate where that is not the newest any more."""
    assignments = "".join(f"{name} = :{name}, " for name in columns)
    conn.write(
        text(
            f"""
            UPDATE payments SET {assignments} version = :version, update_time = :update_time
            WHERE owner_id = :owner_id AND id = :id AND version = :version - 1
            """
        ),
        {
            **columns,
            "version": moved.version,
            "update_time": moved.update_time,
            "owner_id": moved.owner_id,
            "id": moved.id,
        },
        one_of=moved.id,
    )
    return moved


def save_intent_id(conn: Connection, payment: Payment, intent_id: str) -> None:
    """Remember the payment's one PaymentIntent, once. Raises ConcurrentUpdate where another one is remembered: that is the one."""
    conn.write(
        text(
            """
            UPDATE payments SET stripe_payment_intent_id = :intent
            WHERE owner_id = :owner_id AND id = :id AND coalesce(stripe_payment_intent_id, :intent) = :intent
            """
        ),
        {"intent": intent_id, "owner_id": payment.owner_id, "id": payment.id},
        one_of=payment.id,
    )


async def reserve_refund(conn: Connection, payment: Payment, amount_minor: int, now: datetime) -> Payment | None:
    """Take a refund's amount out of what can be refunded: one conditional statement. None where there is not enough, or while a
    chargeback is open."""
    done = await conn.execute(
        text(
            """
            UPDATE payments SET refund_pending_minor = refund_pending_minor + :amount, version = version + 1,
                                update_time = :now
            WHERE owner_id = :owner_id AND id = :id AND version = :expected
              AND refunded_minor + refund_pending_minor + disputed_minor + :amount <= captured_minor
              AND open_chargebacks = 0
            """
        ),
        {
            "amount": amount_minor,
            "now": now,
            "owner_id": payment.owner_id,
            "id": payment.id,
            "expected": payment.version,
        },
    )
    if not done.rowcount:
        return None
    return replace(
        payment,
        refund_pending_minor=payment.refund_pending_minor + amount_minor,
        version=payment.version + 1,
        update_time=now,
    )


def move_refund_counters(
    conn: Connection, payment: Payment, *, pending_minor: int, refunded_minor: int, now: datetime
) -> Payment:
    """Add to the payment's refund counters. Raises ConcurrentUpdate."""
    moved = replace(
        payment,
        refund_pending_minor=payment.refund_pending_minor + pending_minor,
        refunded_minor=payment.refunded_minor + refunded_minor,
        version=payment.version + 1,
        update_time=now,
    )
    return _update(
        conn, moved, {"refund_pending_minor": moved.refund_pending_minor, "refunded_minor": moved.refunded_minor}
    )


def move_dispute_counters(
    conn: Connection, payment: Payment, *, disputed_minor: int, open_chargebacks: int, now: datetime
) -> Payment:
    """Add to the payment's dispute counters: whatever they become, it has happened outside. Raises ConcurrentUpdate."""
    moved = replace(
        payment,
        disputed_minor=payment.disputed_minor + disputed_minor,
        open_chargebacks=payment.open_chargebacks + open_chargebacks,
        version=payment.version + 1,
        update_time=now,
    )
    return _update(conn, moved, {"disputed_minor": moved.disputed_minor, "open_chargebacks": moved.open_chargebacks})


_OF_ATTEMPT: Final = "attempts a JOIN payments p ON p.owner_id = a.owner_id AND p.id = a.payment_id"
_PARTS: Final = """
    (SELECT to_json(a) FROM attempts a WHERE a.owner_id = p.owner_id AND a.payment_id = p.id
     ORDER BY a.id DESC LIMIT 1) AS attempt,
    (SELECT json_agg(c ORDER BY c.id) FROM captures c WHERE c.owner_id = p.owner_id AND c.payment_id = p.id) AS captures,
    (SELECT to_json(o) FROM operations o WHERE o.owner_id = p.owner_id AND o.payment_id = p.id
     AND o.state IN ('CREATED', 'UNKNOWN', 'NEEDS_OPERATOR')) AS operation,
    (SELECT json_agg(i ORDER BY i.create_time, i.id) FROM suspense_items i
     WHERE i.owner_id = p.owner_id AND i.payment_id = p.id) AS suspense"""
"""A payment's newest attempt, captures, open operation and suspense items."""


async def _found(conn: Connection, clauses: str, values: Mapping[str, object], *, lock: bool = False) -> list[Payment]:
    """Return the payments that `clauses` about `p` find, with what belongs to them: all as it was at one moment. Where they are
    locked that is read after the locks: the statement that waits for one sees everything else as it was before it waited."""
    whole = text(f"SELECT p.*, {_PARTS} FROM {clauses}")
    if not lock:
        return [_payment(row) for row in await conn.execute(whole, values)]
    locked, found = await conn.execute_together([text(f"SELECT p.id FROM {clauses} FOR UPDATE OF p"), whole], values)
    # The second may see what was committed after the first had looked, and is not locked.
    mine = set(locked.scalars())
    return [_payment(row) for row in found if row.id in mine]


def _one(payments: Sequence[Payment]) -> Payment | None:
    return payments[0] if payments else None


def _review(row: Row) -> Review | None:
    if not row.review_state:
        return None
    return Review(
        state=ReviewState(row.review_state), reasons=tuple(row.review_reasons), expire_time=row.review_expire_time
    )


def _payment(row: Row) -> Payment:
    return Payment(
        id=row.id,
        owner_id=row.owner_id,
        customer_id=row.customer_id,
        purpose=Purpose(row.purpose),
        top_up_id=row.top_up_id,
        payment_method_id=row.payment_method_id,
        statement_descriptor_suffix=row.statement_descriptor_suffix,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        state=PaymentState(row.state),
        capture_method=CaptureMethod(row.capture_method),
        capturable_minor=row.capturable_minor,
        capture_pending_minor=row.capture_pending_minor,
        multicapture=row.multicapture,
        capture_before_time=row.capture_before_time,
        capture_deadline=row.capture_deadline,
        due_time=row.due_time,
        review=_review(row),
        cancellation_reason=row.cancellation_reason,
        captured_minor=row.captured_minor,
        refunded_minor=row.refunded_minor,
        refund_pending_minor=row.refund_pending_minor,
        disputed_minor=row.disputed_minor,
        open_chargebacks=row.open_chargebacks,
        stripe_payment_intent_id=row.stripe_payment_intent_id or "",
        description=row.description,
        metadata=row.metadata,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        latest_attempt=attempt_of(record(row.attempt)) if row.attempt else None,
        captures=tuple(capture_of(record(one)) for one in row.captures or ()),
        open_operation=operation_of(record(row.operation)) if row.operation else None,
        suspense=tuple(item_of(record(one)) for one in row.suspense or ()),
        overcapture_minor=row.overcapture_minor,
    )
