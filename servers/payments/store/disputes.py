"""The SQL of disputes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from servers.kernel.money import Money
from servers.payments.domain import Dispute, DisputeStage, DisputeState, FeePayer, FundsMovement, Payment
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_dispute(conn: Connection, dispute: Dispute) -> None:
    """Insert a new dispute; its payment's row is locked by the caller."""
    conn.write(
        text(
            """
            INSERT INTO disputes (owner_id, payment_id, id, top_up_id, stripe_dispute_id, stripe_warning_id, stage, state,
                                  amount_minor, currency, at_risk_minor, at_risk_currency, reason, evidence_due_time,
                                  has_evidence, past_due, submission_count, accepting, fee_payer, stage_time, version,
                                  create_time, update_time)
            VALUES (:owner_id, :payment_id, :id, :top_up_id, :stripe_dispute_id, :stripe_warning_id, :stage, :state, :amount,
                    :currency, :at_risk, :at_risk_currency, :reason, :due, :has_evidence, :past_due, :submissions, :accepting,
                    :fee_payer, :stage_time, :version, :create_time, :update_time)
            """
        ),
        {
            **_values(dispute),
            "payment_id": dispute.payment_id,
            "top_up_id": dispute.top_up_id,
            "stripe_warning_id": dispute.stripe_warning_id,
            "at_risk_currency": dispute.at_risk.currency,
            "fee_payer": dispute.fee_payer.value,
            "create_time": dispute.create_time,
        },
    )


def save_dispute(conn: Connection, moved: Dispute, *, expected: int) -> None:
    """Write down a dispute's next version. Raises ConcurrentUpdate where the version is not the expected one."""
    conn.write(
        text(
            """
            UPDATE disputes SET stripe_dispute_id = :stripe_dispute_id, stage = :stage, state = :state, amount_minor = :amount,
                   currency = :currency, at_risk_minor = :at_risk, reason = :reason, evidence_due_time = :due,
                   has_evidence = :has_evidence, past_due = :past_due, submission_count = :submissions,
                   accepting = :accepting, stage_time = :stage_time, version = :version, update_time = :update_time
            WHERE owner_id = :owner_id AND id = :id AND version = :expected
            """
        ),
        {**_values(moved), "expected": expected},
        one_of=moved.id,
    )


def add_movement(conn: Connection, dispute: Dispute, movement: FundsMovement) -> None:
    """Write down one of Stripe's balance transactions for a dispute."""
    conn.write(
        text(
            """
            INSERT INTO dispute_movements (owner_id, dispute_id, id, amount_minor, fee_minor, currency, create_time)
            VALUES (:owner_id, :dispute_id, :id, :amount, :fee, :currency, :create_time)
            """
        ),
        {
            "owner_id": dispute.owner_id,
            "dispute_id": dispute.id,
            "id": movement.id,
            "amount": movement.amount.amount_minor,
            "fee": movement.fee.amount_minor,
            "currency": movement.amount.currency,
            "create_time": movement.create_time,
        },
    )


async def dispute(
    conn: Connection, dispute_id: str, *, owner_id: str | None = None, lock: bool = False
) -> Dispute | None:
    """Return a dispute, of one merchant where given."""
    clause = " AND owner_id = :owner_id" if owner_id is not None else ""
    return await _one(conn, f"id = :id{clause}", {"id": dispute_id, "owner_id": owner_id}, lock=lock)


async def dispute_by_stripe_id(conn: Connection, stripe_dispute_id: str, *, lock: bool = False) -> Dispute | None:
    """Return what we have of a dispute of Stripe's."""
    return await _one(conn, "stripe_dispute_id = :id AND stripe_dispute_id <> ''", {"id": stripe_dispute_id}, lock=lock)


async def dispute_by_warning(conn: Connection, stripe_warning_id: str) -> Dispute | None:
    """Return what we have of an early fraud warning of Stripe's."""
    return await _one(
        conn, "stripe_warning_id = :id AND stripe_warning_id <> ''", {"id": stripe_warning_id}, lock=False
    )


async def open_warnings(conn: Connection, payment: Payment) -> list[Dispute]:
    """Return the payment's early warnings that nothing has come of yet, oldest first; its row is locked by the caller."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM disputes WHERE owner_id = :owner_id AND payment_id = :payment_id AND state = 'EARLY_WARNING'
            ORDER BY id FOR UPDATE
            """
        ),
        {"owner_id": payment.owner_id, "payment_id": payment.id},
    )
    return await _wholes(conn, rows.all())


async def disputes(
    conn: Connection,
    owner_id: str,
    *,
    state: str,
    stage: str,
    payment_id: str,
    time_from: datetime | None,
    time_to: datetime | None,
    before: str,
    limit: int,
) -> list[Dispute]:
    """Return a merchant's disputes, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM disputes WHERE owner_id = :owner_id AND id < :before AND (:state = '' OR state = :state)
              AND (:stage = '' OR stage = :stage) AND (:payment_id = '' OR payment_id = :payment_id)
              AND (CAST(:time_from AS timestamptz) IS NULL OR create_time >= :time_from)
              AND (CAST(:time_to AS timestamptz) IS NULL OR create_time < :time_to)
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {
            "owner_id": owner_id,
            "before": before,
            "state": state,
            "stage": stage,
            "payment_id": payment_id,
            "time_from": time_from,
            "time_to": time_to,
            "limit": limit,
        },
    )
    return await _wholes(conn, rows.all())


async def _one(conn: Connection, where: str, keys: dict[str, Any], *, lock: bool) -> Dispute | None:
    row = (
        await conn.execute(text(f"SELECT * FROM disputes WHERE {where}{' FOR UPDATE' if lock else ''}"), keys)
    ).one_or_none()
    return (await _wholes(conn, [row]))[0] if row is not None else None


async def _wholes(conn: Connection, rows: Sequence[Row]) -> list[Dispute]:
    """Add each dispute's movements: one statement, however many disputes there are."""
    movements: dict[str, list[FundsMovement]] = {}
    if rows:
        found = await conn.execute(
            text(
                """
                SELECT * FROM dispute_movements WHERE owner_id = ANY(:owners) AND dispute_id = ANY(:disputes)
                ORDER BY create_time, id
                """
            ),
            {"owners": sorted({row.owner_id for row in rows}), "disputes": [row.id for row in rows]},
        )
        for one in found:
            movements.setdefault(one.dispute_id, []).append(
                FundsMovement(
                    id=one.id,
                    amount=Money(amount_minor=one.amount_minor, currency=one.currency),
                    fee=Money(amount_minor=one.fee_minor, currency=one.currency),
                    create_time=one.create_time,
                )
            )
    return [_dispute(row, tuple(movements.get(row.id, ()))) for row in rows]


def _values(dispute: Dispute) -> dict[str, Any]:
    return {
        "owner_id": dispute.owner_id,
        "id": dispute.id,
        "stripe_dispute_id": dispute.stripe_dispute_id,
        "stage": dispute.stage.value,
        "state": dispute.state.value,
        "amount": dispute.amount.amount_minor,
        "currency": dispute.amount.currency,
        "at_risk": dispute.at_risk.amount_minor,
        "reason": dispute.reason,
        "due": dispute.evidence_due_time,
        "has_evidence": dispute.has_evidence,
        "past_due": dispute.past_due,
        "submissions": dispute.submission_count,
        "accepting": dispute.accepting,
        "stage_time": dispute.stage_time,
        "version": dispute.version,
        "update_time": dispute.update_time,
    }


def _dispute(row: Row, movements: tuple[FundsMovement, ...]) -> Dispute:
    return Dispute(
        id=row.id,
        payment_id=row.payment_id,
        owner_id=row.owner_id,
        top_up_id=row.top_up_id,
        stripe_dispute_id=row.stripe_dispute_id,
        stripe_warning_id=row.stripe_warning_id,
        stage=DisputeStage(row.stage),
        state=DisputeState(row.state),
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        at_risk=Money(amount_minor=row.at_risk_minor, currency=row.at_risk_currency),
        reason=row.reason,
        evidence_due_time=row.evidence_due_time,
        has_evidence=row.has_evidence,
        past_due=row.past_due,
        submission_count=row.submission_count,
        accepting=row.accepting,
        fee_payer=FeePayer(row.fee_payer),
        stage_time=row.stage_time,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        movements=movements,
    )
