"""The SQL of mandates and of merchants' settings for payments."""

from __future__ import annotations

from datetime import datetime

from servers.payments.domain import Mandate, MandateState, PaymentSettings, Usage
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_mandate(conn: Connection, mandate: Mandate) -> None:
    """Insert a mandate. The partial unique index refuses a second active one of the same card and merchant."""
    conn.write(
        text(
            """
            INSERT INTO mandates (owner_id, id, merchant_id, payment_method_id, usage, state, version, create_time, update_time)
            VALUES (:owner_id, :id, :merchant_id, :method, :usage, :state, :version, :create_time, :update_time)
            """
        ),
        {
            "owner_id": mandate.owner_id,
            "id": mandate.id,
            "merchant_id": mandate.merchant_id,
            "method": mandate.payment_method_id,
            "usage": mandate.usage.value,
            "state": mandate.state.value,
            "version": mandate.version,
            "create_time": mandate.create_time,
            "update_time": mandate.update_time,
        },
    )


async def mandate(conn: Connection, owner_id: str, mandate_id: str, *, lock: bool = False) -> Mandate | None:
    """Return one of a user's mandates."""
    suffix = " FOR UPDATE" if lock else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM mandates WHERE owner_id = :owner AND id = :id{suffix}"),
            {"owner": owner_id, "id": mandate_id},
        )
    ).one_or_none()
    return _mandate(row) if row is not None else None


async def active_mandates(
    conn: Connection, *, owner_id: str = "", merchant_id: str = "", method_id: str, lock: bool = False
) -> list[Mandate]:
    """Return the active mandates for a card: of its owner, or of one merchant, or of both."""
    rows = await conn.execute(
        text(
            f"""
            SELECT * FROM mandates WHERE payment_method_id = :method AND state = 'ACTIVE'
              AND (:owner = '' OR owner_id = :owner) AND (:merchant = '' OR merchant_id = :merchant)
            ORDER BY id{" FOR UPDATE" if lock else ""}
            """
        ),
        {"method": method_id, "owner": owner_id, "merchant": merchant_id},
    )
    return [_mandate(row) for row in rows]


async def mandates(
    conn: Connection,
    *,
    owner_id: str | None,
    merchant_id: str | None,
    method_id: str,
    state: str,
    before: str,
    limit: int,
) -> list[Mandate]:
    """Return mandates that a user gave or that a merchant holds, newest first."""
    clause = "owner_id = :whose" if owner_id is not None else "merchant_id = :whose"
    rows = await conn.execute(
        text(
            f"""
            SELECT * FROM mandates WHERE {clause} AND id < :before AND (:state = '' OR state = :state)
              AND (:method = '' OR payment_method_id = :method)
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {
            "whose": owner_id if owner_id is not None else merchant_id,
            "before": before,
            "state": state,
            "method": method_id,
            "limit": limit,
        },
    )
    return [_mandate(row) for row in rows]


def update_mandate(conn: Connection, mandate: Mandate, *, expected_version: int) -> None:
    """Write a mandate's new state. Raises ConcurrentUpdate."""
    conn.write(
        text(
            """
            UPDATE mandates SET state = :state, revoke_time = :revoke_time, version = :version, update_time = :update_time
            WHERE owner_id = :owner_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": mandate.state.value,
            "revoke_time": mandate.revoke_time,
            "version": mandate.version,
            "update_time": mandate.update_time,
            "owner_id": mandate.owner_id,
            "id": mandate.id,
            "expected": expected_version,
        },
        one_of=mandate.id,
    )


async def payment_settings(conn: Connection, merchant_id: str, *, lock: bool = False) -> PaymentSettings:
    """Return a merchant's settings; version 0 where there are none yet."""
    suffix = " FOR UPDATE" if lock else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM payment_settings WHERE merchant_id = :merchant{suffix}"), {"merchant": merchant_id}
        )
    ).one_or_none()
    if row is None:
        return PaymentSettings(merchant_id=merchant_id, return_url_origins=(), version=0, update_time=None)
    return PaymentSettings(
        merchant_id=merchant_id,
        return_url_origins=tuple(row.return_url_origins),
        refunds_wait=row.refunds_wait,
        version=row.version,
        update_time=row.update_time,
    )


def save_payment_settings(conn: Connection, settings: PaymentSettings, now: datetime) -> None:
    """Write a merchant's settings as the version after the one that was read. Raises ConcurrentUpdate."""
    conn.write(
        text(
            """
            INSERT INTO payment_settings (merchant_id, return_url_origins, refunds_wait, version, update_time)
            VALUES (:merchant, :origins, :refunds_wait, :version, :now)
            ON CONFLICT (merchant_id) DO UPDATE
                SET return_url_origins = excluded.return_url_origins, refunds_wait = excluded.refunds_wait,
                    version = excluded.version, update_time = excluded.update_time
                WHERE payment_settings.version = excluded.version - 1
            """
        ),
        {
            "merchant": settings.merchant_id,
            "origins": list(settings.return_url_origins),
            "refunds_wait": settings.refunds_wait,
            "version": settings.version,
            "now": now,
        },
        one_of=settings.merchant_id,
    )


def _mandate(row: Row) -> Mandate:
    return Mandate(
        id=row.id,
        owner_id=row.owner_id,
        merchant_id=row.merchant_id,
        payment_method_id=row.payment_method_id,
        usage=Usage(row.usage),
        state=MandateState(row.state),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        revoke_time=row.revoke_time,
    )
