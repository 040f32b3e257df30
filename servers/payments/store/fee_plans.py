"""The SQL of merchants' fee plans: versions are added, never changed."""

from __future__ import annotations

import json
from datetime import datetime

from servers.payments.domain import FeePlan, FeeRefund, MerchantFeePlan, version_name
from servers.runtime.connection import Connection
from servers.runtime.sql import text


async def fee_plan(conn: Connection, merchant_id: str, *, at: datetime | None = None) -> MerchantFeePlan | None:
    """Return the version of a merchant's plan that was in force at an instant, or the newest one."""
    clause = " AND effective_time <= :at" if at is not None else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM fee_plans WHERE merchant_id = :merchant{clause} ORDER BY number DESC LIMIT 1"),
            {"merchant": merchant_id, "at": at},
        )
    ).one_or_none()
    if row is None:
        return None
    return MerchantFeePlan(
        merchant_id=row.merchant_id,
        number=row.number,
        plan=FeePlan(
            version=version_name(row.number),
            basis_points=row.basis_points,
            fixed_minor=row.fixed_minor,
            fee_refund=FeeRefund(row.fee_refund),
            settlement_delay_seconds=row.settlement_delay_seconds,
        ),
        reason=row.reason,
        set_by=row.set_by,
        effective_time=row.effective_time,
        create_time=row.create_time,
    )


def insert_fee_plan(conn: Connection, own: MerchantFeePlan) -> None:
    """Write the version after the one that was read. Raises ConcurrentUpdate where somebody else has written it."""
    conn.write(
        text(
            """
            INSERT INTO fee_plans (merchant_id, number, basis_points, fixed_minor, fee_refund, settlement_delay_seconds, reason,
                                   set_by, effective_time, create_time)
            VALUES (:merchant, :number, :basis_points, CAST(:fixed AS jsonb), :fee_refund, :delay, :reason, :set_by, :effective,
                    :now)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "merchant": own.merchant_id,
            "number": own.number,
            "basis_points": own.plan.basis_points,
            "fixed": json.dumps(dict(own.plan.fixed_minor)),
            "fee_refund": own.plan.fee_refund.value,
            "delay": own.plan.settlement_delay_seconds,
            "reason": own.reason,
            "set_by": own.set_by,
            "effective": own.effective_time,
            "now": own.create_time,
        },
        one_of=own.merchant_id,
    )
