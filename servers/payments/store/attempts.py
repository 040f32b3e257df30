"""The SQL of attempts and captures."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from servers.kernel.money import Money
from servers.payments.domain import (
    ATTEMPT,
    Attempt,
    AttemptState,
    Capture,
    FeeRefund,
    NextAction,
    Payment,
    Source,
    Usage,
)
from servers.payments.store.rows import DECLINE_COLUMNS, NOTHING_ASKED, action_in, decline_in, decline_values, manner_of
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_attempt(conn: Connection, attempt: Attempt) -> None:
    """Insert a new attempt. The partial unique index refuses a second open one."""
    conn.write(
        text(
            """
            INSERT INTO attempts (owner_id, payment_id, id, payment_method_id, stripe_payment_method_id, wallet_id, off_session,
                                  return_url, use_stripe_sdk, save_for, state, prior_charge_id, prior_uncharged,
                                  create_time, update_time)
            VALUES (:owner_id, :payment_id, :id, :method, :stripe_method, :wallet_id, :off_session, :return_url, :sdk,
                    :save_for, :state, :prior, :prior_uncharged, :create_time, :update_time)
            """
        ),
        {
            "owner_id": attempt.owner_id,
            "payment_id": attempt.payment_id,
            "id": attempt.id,
            "method": attempt.source.payment_method_id,
            "stripe_method": attempt.source.stripe_payment_method_id,
            "wallet_id": attempt.source.wallet_id,
            "off_session": attempt.manner.off_session,
            "return_url": attempt.manner.return_url,
            "sdk": attempt.manner.use_stripe_sdk,
            "save_for": attempt.manner.save_for.value,
            "state": attempt.state.value,
            "prior": attempt.prior_charge_id,
            "prior_uncharged": attempt.prior_uncharged,
            "create_time": attempt.create_time,
            "update_time": attempt.update_time,
        },
    )


def advance_attempt(
    conn: Connection,
    attempt: Attempt,
    trigger: str,
    *,
    now: datetime,
    next_action: NextAction = NOTHING_ASKED,
    **changes: Any,
) -> Attempt:
    """Walk one arrow of the attempt's machine; its payment's row is locked by the caller. What the cardholder was asked for before
    is over with it."""
    target = ATTEMPT.arrow(attempt.state, trigger, attempt.payment_id).target
    moved = replace(attempt, state=target, update_time=now, next_action=next_action, **changes)
    conn.write(
        text(
            f"""
            UPDATE attempts SET state = :state, payment_method_id = :method, charge_id = :charge_id, {DECLINE_COLUMNS},
                   next_action_url = :url, next_action_secret = :secret, update_time = :now
            WHERE owner_id = :owner_id AND id = :id AND state = :expected
            """
        ),
        {
            "state": moved.state.value,
            "method": moved.source.payment_method_id,
            "charge_id": moved.charge_id,
            **decline_values(moved.decline),
            "url": moved.next_action.url,
            "secret": moved.next_action.sealed_secret or None,
            "now": now,
            "owner_id": attempt.owner_id,
            "id": attempt.id,
            "expected": attempt.state.value,
        },
        one_of=attempt.id,
    )
    return moved


async def attempt_by_id(conn: Connection, attempt_id: str) -> Attempt:
    """Return an attempt by its id."""
    row = (await conn.execute(text("SELECT * FROM attempts WHERE id = :id"), {"id": attempt_id})).one()
    return attempt_of(row)


async def attempts(conn: Connection, payment: Payment, *, before: str, limit: int) -> list[Attempt]:
    """Return a payment's attempts, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM attempts WHERE owner_id = :owner_id AND payment_id = :payment_id AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"owner_id": payment.owner_id, "payment_id": payment.id, "before": before, "limit": limit},
    )
    return [attempt_of(row) for row in rows]


def insert_capture(conn: Connection, payment: Payment, capture: Capture) -> None:
    """Insert a capture."""
    conn.write(
        text(
            """
            INSERT INTO captures (owner_id, payment_id, id, amount_minor, currency, fee_minor, fee_due_minor, fee_plan_version,
                                  fee_refund, settlement_delay_seconds, capture_time, suspense_item_id)
            VALUES (:owner_id, :payment_id, :id, :amount, :currency, :fee, :due, :plan, :fee_refund, :delay, :time, :item)
            """
        ),
        {
            "owner_id": payment.owner_id,
            "payment_id": payment.id,
            "id": capture.id,
            "amount": capture.amount.amount_minor,
            "currency": capture.amount.currency,
            "fee": capture.fee.amount_minor,
            "due": capture.fee_due_minor,
            "plan": capture.fee_plan_version,
            "fee_refund": capture.fee_refund.value,
            "delay": capture.settlement_delay_seconds,
            "time": capture.capture_time,
            "item": capture.suspense_item_id,
        },
    )


def capture_of(row: Row) -> Capture:
    """Return the capture of a row."""
    return Capture(
        id=row.id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        fee=Money(amount_minor=row.fee_minor, currency=row.currency),
        # Captures that are older than the column paid what was asked of them.
        fee_due_minor=row.fee_due_minor if row.fee_due_minor is not None else row.fee_minor,
        fee_plan_version=row.fee_plan_version,
        fee_refund=FeeRefund(row.fee_refund),
        settlement_delay_seconds=row.settlement_delay_seconds,
        capture_time=row.capture_time,
        suspense_item_id=row.suspense_item_id,
    )


async def captures(conn: Connection, payment: Payment, *, before: str, limit: int) -> list[Capture]:
    """Return a payment's captures, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM captures WHERE owner_id = :owner_id AND payment_id = :payment_id AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"owner_id": payment.owner_id, "payment_id": payment.id, "before": before, "limit": limit},
    )
    return [capture_of(row) for row in rows]


def attempt_of(row: Row) -> Attempt:
    """Return the attempt of a row."""
    return Attempt(
        id=row.id,
        payment_id=row.payment_id,
        owner_id=row.owner_id,
        source=Source(
            payment_method_id=row.payment_method_id,
            stripe_payment_method_id=row.stripe_payment_method_id,
            wallet_id=row.wallet_id,
        ),
        manner=manner_of(row, save_for=Usage(row.save_for), off_session=row.off_session),
        state=AttemptState(row.state),
        charge_id=row.charge_id,
        prior_charge_id=row.prior_charge_id,
        prior_uncharged=row.prior_uncharged,
        decline=decline_in(row),
        next_action=action_in(row),
        create_time=row.create_time,
        update_time=row.update_time,
    )
