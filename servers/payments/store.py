"""The SQL of the payments domain. Every statement names the owner; a change names the version that it expects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from servers.kernel.errors import ConcurrentUpdate
from servers.kernel.money import Money
from servers.payments.domain import (
    ATTEMPT,
    PAYMENT,
    REFUND,
    Attempt,
    AttemptState,
    Capture,
    Card,
    Decline,
    MethodState,
    Payment,
    PaymentMethod,
    PaymentState,
    Refund,
    RefundState,
)


async def stripe_customer(conn: AsyncConnection, owner_id: str) -> str | None:
    """Return the Stripe customer of a user."""
    found: str | None = await conn.scalar(
        text("SELECT stripe_id FROM stripe_customers WHERE owner_id = :owner"), {"owner": owner_id}
    )
    return found


async def save_stripe_customer(conn: AsyncConnection, owner_id: str, stripe_id: str, now: datetime) -> None:
    """Remember the Stripe customer of a user."""
    await conn.execute(
        text("INSERT INTO stripe_customers VALUES (:owner, :stripe_id, :now) ON CONFLICT (owner_id) DO NOTHING"),
        {"owner": owner_id, "stripe_id": stripe_id, "now": now},
    )


async def insert_method(conn: AsyncConnection, method: PaymentMethod) -> None:
    """Insert a payment method that is about to be attached."""
    await conn.execute(
        text(
            """
            INSERT INTO payment_methods (owner_id, id, stripe_id, state, version, create_time, update_time)
            VALUES (:owner_id, :id, :stripe_id, :state, :version, :create_time, :update_time)
            """
        ),
        {
            "owner_id": method.owner_id,
            "id": method.id,
            "stripe_id": method.stripe_id,
            "state": method.state.value,
            "version": method.version,
            "create_time": method.create_time,
            "update_time": method.update_time,
        },
    )


async def method(conn: AsyncConnection, owner_id: str, method_id: str, *, lock: bool = False) -> PaymentMethod | None:
    """Return one of a user's payment methods."""
    suffix = " FOR UPDATE" if lock else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM payment_methods WHERE owner_id = :owner AND id = :id{suffix}"),
            {"owner": owner_id, "id": method_id},
        )
    ).one_or_none()
    return _method(row) if row is not None else None


async def method_by_id(conn: AsyncConnection, method_id: str) -> PaymentMethod:
    """Return a payment method for the janitor, who acts for nobody."""
    row = (await conn.execute(text("SELECT * FROM payment_methods WHERE id = :id"), {"id": method_id})).one()
    return _method(row)


async def methods(conn: AsyncConnection, owner_id: str, *, before: str, limit: int) -> list[PaymentMethod]:
    """Return a user's attached payment methods, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM payment_methods WHERE owner_id = :owner AND state = 'ATTACHED' AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"owner": owner_id, "before": before, "limit": limit},
    )
    return [_method(row) for row in rows]


async def update_method(conn: AsyncConnection, method: PaymentMethod, *, expected_version: int) -> None:
    """Write a payment method's new state. Raises ConcurrentUpdate."""
    card = method.card
    done = await conn.execute(
        text(
            """
            UPDATE payment_methods SET state = :state, stripe_id = :stripe_id, brand = :brand, last4 = :last4,
                   exp_month = :exp_month, exp_year = :exp_year, funding = :funding, country = :country,
                   version = :version, update_time = :update_time
            WHERE owner_id = :owner_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": method.state.value,
            "stripe_id": method.stripe_id,
            "brand": card.brand if card else None,
            "last4": card.last4 if card else None,
            "exp_month": card.exp_month if card else None,
            "exp_year": card.exp_year if card else None,
            "funding": card.funding if card else None,
            "country": card.country if card else None,
            "version": method.version,
            "update_time": method.update_time,
            "owner_id": method.owner_id,
            "id": method.id,
            "expected": expected_version,
        },
    )
    _one(done.rowcount, method.id)


async def insert_payment(conn: AsyncConnection, payment: Payment) -> None:
    """Insert a new payment."""
    await conn.execute(
        text(
            """
            INSERT INTO payments (merchant_id, id, customer_id, amount_minor, currency, state, description, metadata, version,
                                  create_time, update_time)
            VALUES (:merchant_id, :id, :customer_id, :amount, :currency, :state, :description, CAST(:metadata AS jsonb),
                    :version, :create_time, :update_time)
            """
        ),
        {
            "merchant_id": payment.merchant_id,
            "id": payment.id,
            "customer_id": payment.customer_id,
            "amount": payment.amount.amount_minor,
            "currency": payment.amount.currency,
            "state": payment.state.value,
            "description": payment.description,
            "metadata": json.dumps(dict(payment.metadata)),
            "version": payment.version,
            "create_time": payment.create_time,
            "update_time": payment.update_time,
        },
    )


async def payment(
    conn: AsyncConnection,
    payment_id: str,
    *,
    merchant_id: str | None = None,
    customer_id: str | None = None,
    lock: bool = False,
) -> Payment | None:
    """Return a payment with its newest attempt and captures, if it belongs to the merchant or the customer asked for."""
    clauses = ["id = :id"]
    if merchant_id is not None:
        clauses.append("merchant_id = :merchant_id")
    if customer_id is not None:
        clauses.append("customer_id = :customer_id")
    row = (
        await conn.execute(
            text(f"SELECT * FROM payments WHERE {' AND '.join(clauses)}{' FOR UPDATE' if lock else ''}"),
            {"id": payment_id, "merchant_id": merchant_id, "customer_id": customer_id},
        )
    ).one_or_none()
    return (await _wholes(conn, [row]))[0] if row is not None else None


async def payment_by_intent(conn: AsyncConnection, intent_id: str, *, lock: bool = False) -> Payment | None:
    """Return the payment that a Stripe PaymentIntent carries out."""
    suffix = " FOR UPDATE" if lock else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM payments WHERE stripe_payment_intent_id = :intent{suffix}"), {"intent": intent_id}
        )
    ).one_or_none()
    return (await _wholes(conn, [row]))[0] if row is not None else None


async def payments(
    conn: AsyncConnection,
    *,
    merchant_id: str | None,
    customer_id: str | None,
    state: str,
    time_from: datetime | None,
    time_to: datetime | None,
    before: str,
    limit: int,
) -> list[Payment]:
    """Return payments of a merchant or a customer, newest first."""
    owner = "merchant_id = :owner" if merchant_id is not None else "customer_id = :owner"
    rows = (
        await conn.execute(
            text(
                f"""
                SELECT * FROM payments WHERE {owner} AND id < :before AND (:state = '' OR state = :state)
                  AND (CAST(:time_from AS timestamptz) IS NULL OR create_time >= :time_from)
                  AND (CAST(:time_to AS timestamptz) IS NULL OR create_time < :time_to)
                ORDER BY id DESC LIMIT :limit
                """
            ),
            {
                "owner": merchant_id if merchant_id is not None else customer_id,
                "before": before,
                "state": state,
                "time_from": time_from,
                "time_to": time_to,
                "limit": limit,
            },
        )
    ).all()
    return await _wholes(conn, rows)


async def advance(
    conn: AsyncConnection, payment: Payment, trigger: str, *, now: datetime, captured_minor: int = 0
) -> Payment:
    """Walk one arrow of the payment's machine. Raises PaymentStateInvalid, or ConcurrentUpdate where the version moved."""
    arrow = PAYMENT.arrow(payment.state, trigger)
    moved = replace(
        payment,
        state=arrow.target,
        version=payment.version + 1,
        update_time=now,
        captured_minor=payment.captured_minor + captured_minor,
    )
    done = await conn.execute(
        text(
            """
            UPDATE payments SET state = :state, version = :version, update_time = :now, captured_minor = :captured
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": moved.state.value,
            "version": moved.version,
            "now": now,
            "captured": moved.captured_minor,
            "merchant_id": payment.merchant_id,
            "id": payment.id,
            "expected": payment.version,
        },
    )
    _one(done.rowcount, payment.id)
    return moved


async def save_intent_id(conn: AsyncConnection, payment: Payment, intent_id: str) -> None:
    """Remember the payment's one PaymentIntent, once."""
    await conn.execute(
        text(
            """
            UPDATE payments SET stripe_payment_intent_id = :intent
            WHERE merchant_id = :merchant_id AND id = :id AND stripe_payment_intent_id IS NULL
            """
        ),
        {"intent": intent_id, "merchant_id": payment.merchant_id, "id": payment.id},
    )


async def reserve_refund(conn: AsyncConnection, payment: Payment, amount_minor: int, now: datetime) -> Payment | None:
    """Take a refund's amount out of what can be refunded: one conditional statement. None where there is not enough."""
    done = await conn.execute(
        text(
            """
            UPDATE payments SET refund_pending_minor = refund_pending_minor + :amount, version = version + 1,
                                update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
              AND refunded_minor + refund_pending_minor + :amount <= captured_minor
            """
        ),
        {
            "amount": amount_minor,
            "now": now,
            "merchant_id": payment.merchant_id,
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


async def move_refund_counters(
    conn: AsyncConnection, payment: Payment, *, pending_minor: int, refunded_minor: int, now: datetime
) -> Payment:
    """Add to the payment's refund counters. Raises ConcurrentUpdate."""
    moved = replace(
        payment,
        refund_pending_minor=payment.refund_pending_minor + pending_minor,
        refunded_minor=payment.refunded_minor + refunded_minor,
        version=payment.version + 1,
        update_time=now,
    )
    done = await conn.execute(
        text(
            """
            UPDATE payments SET refund_pending_minor = :pending, refunded_minor = :refunded, version = :version,
                                update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
            """
        ),
        {
            "pending": moved.refund_pending_minor,
            "refunded": moved.refunded_minor,
            "version": moved.version,
            "now": now,
            "merchant_id": payment.merchant_id,
            "id": payment.id,
            "expected": payment.version,
        },
    )
    _one(done.rowcount, payment.id)
    return moved


async def insert_attempt(conn: AsyncConnection, attempt: Attempt) -> None:
    """Insert a new attempt. The partial unique index refuses a second open one."""
    await conn.execute(
        text(
            """
            INSERT INTO attempts (merchant_id, payment_id, id, payment_method_id, stripe_payment_method_id, state,
                                  prior_charge_id, create_time, update_time)
            VALUES (:merchant_id, :payment_id, :id, :method, :stripe_method, :state, :prior, :create_time, :update_time)
            """
        ),
        {
            "merchant_id": attempt.merchant_id,
            "payment_id": attempt.payment_id,
            "id": attempt.id,
            "method": attempt.payment_method_id,
            "stripe_method": attempt.stripe_payment_method_id,
            "state": attempt.state.value,
            "prior": attempt.prior_charge_id,
            "create_time": attempt.create_time,
            "update_time": attempt.update_time,
        },
    )


async def advance_attempt(
    conn: AsyncConnection, attempt: Attempt, trigger: str, *, now: datetime, **changes: Any
) -> Attempt:
    """Walk one arrow of the attempt's machine; its payment's row is locked by the caller."""
    moved = replace(attempt, state=ATTEMPT.arrow(attempt.state, trigger).target, update_time=now, **changes)
    done = await conn.execute(
        text(
            """
            UPDATE attempts SET state = :state, charge_id = :charge_id, decline_code = :code, decline_action = :action,
                   decline_message = :message, next_action_url = :url, update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND state = :expected
            """
        ),
        {
            "state": moved.state.value,
            "charge_id": moved.charge_id,
            "code": moved.decline.code if moved.decline else None,
            "action": moved.decline.recommended_action if moved.decline else None,
            "message": moved.decline.message if moved.decline else None,
            "url": moved.next_action_url,
            "now": now,
            "merchant_id": attempt.merchant_id,
            "id": attempt.id,
            "expected": attempt.state.value,
        },
    )
    _one(done.rowcount, attempt.id)
    return moved


async def attempt_by_id(conn: AsyncConnection, attempt_id: str) -> Attempt:
    """Return an attempt by its id."""
    row = (await conn.execute(text("SELECT * FROM attempts WHERE id = :id"), {"id": attempt_id})).one()
    return _attempt(row)


async def attempts(conn: AsyncConnection, payment: Payment, *, before: str, limit: int) -> list[Attempt]:
    """Return a payment's attempts, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM attempts WHERE merchant_id = :merchant_id AND payment_id = :payment_id AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"merchant_id": payment.merchant_id, "payment_id": payment.id, "before": before, "limit": limit},
    )
    return [_attempt(row) for row in rows]


async def insert_capture(conn: AsyncConnection, payment: Payment, capture: Capture) -> None:
    """Insert a capture."""
    await conn.execute(
        text(
            """
            INSERT INTO captures (merchant_id, payment_id, id, amount_minor, currency, fee_minor, fee_plan_version, capture_time)
            VALUES (:merchant_id, :payment_id, :id, :amount, :currency, :fee, :plan, :time)
            """
        ),
        {
            "merchant_id": payment.merchant_id,
            "payment_id": payment.id,
            "id": capture.id,
            "amount": capture.amount.amount_minor,
            "currency": capture.amount.currency,
            "fee": capture.fee.amount_minor,
            "plan": capture.fee_plan_version,
            "time": capture.capture_time,
        },
    )


async def insert_refund(conn: AsyncConnection, refund: Refund) -> None:
    """Insert a new refund."""
    await conn.execute(
        text(
            """
            INSERT INTO refunds (merchant_id, payment_id, id, amount_minor, currency, reason, state, metadata, version,
                                 create_time, update_time)
            VALUES (:merchant_id, :payment_id, :id, :amount, :currency, :reason, :state, CAST(:metadata AS jsonb), :version,
                    :create_time, :update_time)
            """
        ),
        {
            "merchant_id": refund.merchant_id,
            "payment_id": refund.payment_id,
            "id": refund.id,
            "amount": refund.amount.amount_minor,
            "currency": refund.amount.currency,
            "reason": refund.reason,
            "state": refund.state.value,
            "metadata": json.dumps(dict(refund.metadata)),
            "version": refund.version,
            "create_time": refund.create_time,
            "update_time": refund.update_time,
        },
    )


async def refund(
    conn: AsyncConnection, refund_id: str, *, merchant_id: str | None = None, lock: bool = False
) -> Refund | None:
    """Return a refund, of one merchant where given."""
    clause = " AND merchant_id = :merchant_id" if merchant_id is not None else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM refunds WHERE id = :id{clause}{' FOR UPDATE' if lock else ''}"),
            {"id": refund_id, "merchant_id": merchant_id},
        )
    ).one_or_none()
    return _refund(row) if row is not None else None


async def refunds(conn: AsyncConnection, payment: Payment, *, before: str, limit: int) -> list[Refund]:
    """Return a payment's refunds, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM refunds WHERE merchant_id = :merchant_id AND payment_id = :payment_id AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"merchant_id": payment.merchant_id, "payment_id": payment.id, "before": before, "limit": limit},
    )
    return [_refund(row) for row in rows]


async def advance_refund(
    conn: AsyncConnection, refund: Refund, trigger: str, *, stripe_refund_id: str, failure_reason: str, now: datetime
) -> Refund:
    """Walk one arrow of the refund's machine. Raises RefundStateInvalid, or ConcurrentUpdate where the version moved."""
    moved = replace(
        refund,
        state=REFUND.arrow(refund.state, trigger).target,
        stripe_refund_id=stripe_refund_id or refund.stripe_refund_id,
        failure_reason=failure_reason,
        uncertain=False,
        version=refund.version + 1,
        update_time=now,
    )
    done = await conn.execute(
        text(
            """
            UPDATE refunds SET state = :state, stripe_refund_id = :stripe_id, failure_reason = :failure, uncertain = false,
                               version = :version, update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": moved.state.value,
            "stripe_id": moved.stripe_refund_id,
            "failure": moved.failure_reason,
            "version": moved.version,
            "now": now,
            "merchant_id": refund.merchant_id,
            "id": refund.id,
            "expected": refund.version,
        },
    )
    _one(done.rowcount, refund.id)
    return moved


async def note_refund(conn: AsyncConnection, refund: Refund, *, uncertain: bool, stripe_refund_id: str = "") -> Refund:
    """Note what is known of a refund that stays PENDING: not a change of state, so no version and no event."""
    stripe_id = stripe_refund_id or refund.stripe_refund_id
    await conn.execute(
        text(
            """
            UPDATE refunds SET uncertain = :uncertain, stripe_refund_id = :stripe_id
            WHERE merchant_id = :merchant_id AND id = :id
            """
        ),
        {"uncertain": uncertain, "stripe_id": stripe_id, "merchant_id": refund.merchant_id, "id": refund.id},
    )
    return replace(refund, uncertain=uncertain, stripe_refund_id=stripe_id)


async def _wholes(conn: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Payment]:
    """Add each payment's newest attempt and its captures: two statements, however many payments there are."""
    keys = {"merchants": sorted({row.merchant_id for row in rows}), "payments": [row.id for row in rows]}
    attempts = await conn.execute(
        text(
            """
            SELECT DISTINCT ON (merchant_id, payment_id) * FROM attempts
            WHERE merchant_id = ANY(:merchants) AND payment_id = ANY(:payments)
            ORDER BY merchant_id, payment_id, id DESC
            """
        ),
        keys,
    )
    newest = {attempt.payment_id: _attempt(attempt) for attempt in attempts}
    captures: dict[str, list[Capture]] = {}
    for capture in await conn.execute(
        text("SELECT * FROM captures WHERE merchant_id = ANY(:merchants) AND payment_id = ANY(:payments) ORDER BY id"),
        keys,
    ):
        captures.setdefault(capture.payment_id, []).append(_capture(capture))
    return [_payment(row, newest.get(row.id), tuple(captures.get(row.id, ()))) for row in rows]


def _payment(row: Row[Any], attempt: Attempt | None, captures: tuple[Capture, ...]) -> Payment:
    return Payment(
        id=row.id,
        merchant_id=row.merchant_id,
        customer_id=row.customer_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        state=PaymentState(row.state),
        captured_minor=row.captured_minor,
        refunded_minor=row.refunded_minor,
        refund_pending_minor=row.refund_pending_minor,
        stripe_payment_intent_id=row.stripe_payment_intent_id or "",
        description=row.description,
        metadata=row.metadata,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        latest_attempt=attempt,
        captures=captures,
    )


def _capture(row: Row[Any]) -> Capture:
    return Capture(
        id=row.id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        fee=Money(amount_minor=row.fee_minor, currency=row.currency),
        fee_plan_version=row.fee_plan_version,
        capture_time=row.capture_time,
    )


def _attempt(row: Row[Any]) -> Attempt:
    decline = None
    if row.decline_code is not None:
        decline = Decline(code=row.decline_code, recommended_action=row.decline_action, message=row.decline_message)
    return Attempt(
        id=row.id,
        payment_id=row.payment_id,
        merchant_id=row.merchant_id,
        payment_method_id=row.payment_method_id,
        stripe_payment_method_id=row.stripe_payment_method_id,
        state=AttemptState(row.state),
        charge_id=row.charge_id,
        prior_charge_id=row.prior_charge_id,
        decline=decline,
        next_action_url=row.next_action_url,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _method(row: Row[Any]) -> PaymentMethod:
    card = None
    if row.brand is not None:
        card = Card(
            brand=row.brand,
            last4=row.last4,
            exp_month=row.exp_month,
            exp_year=row.exp_year,
            funding=row.funding,
            country=row.country,
        )
    return PaymentMethod(
        id=row.id,
        owner_id=row.owner_id,
        stripe_id=row.stripe_id,
        state=MethodState(row.state),
        card=card,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _refund(row: Row[Any]) -> Refund:
    return Refund(
        id=row.id,
        payment_id=row.payment_id,
        merchant_id=row.merchant_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        reason=row.reason,
        state=RefundState(row.state),
        stripe_refund_id=row.stripe_refund_id,
        failure_reason=row.failure_reason,
        uncertain=row.uncertain,
        metadata=row.metadata,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _one(rowcount: int, resource: str) -> None:
    if rowcount != 1:
        raise ConcurrentUpdate(resource)
