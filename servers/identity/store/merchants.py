"""The SQL of merchants."""

from __future__ import annotations

from servers.identity.domain import Merchant
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_merchant(conn: Connection, merchant: Merchant, owner_id: str) -> None:
    """Insert a merchant with its owner."""
    conn.write(
        text(
            """
            INSERT INTO merchants (id, display_name, country, default_currency, version, create_time, update_time)
            VALUES (:id, :name, :country, :currency, :version, :create_time, :update_time)
            """
        ),
        {
            "id": merchant.id,
            "name": merchant.display_name,
            "country": merchant.country,
            "currency": merchant.default_currency,
            "version": merchant.version,
            "create_time": merchant.create_time,
            "update_time": merchant.update_time,
        },
    )
    conn.write(
        text(
            "INSERT INTO members (merchant_id, user_id, role, create_time, state, version) "
            "VALUES (:merchant_id, :user_id, 'owner', :now, 'ACTIVE', 1)"
        ),
        {"merchant_id": merchant.id, "user_id": owner_id, "now": merchant.create_time},
    )


async def merchant_of_member(conn: Connection, merchant_id: str, user_id: str) -> Merchant | None:
    """Return a merchant that the user is a member of, with the role."""
    row = (
        await conn.execute(
            text(
                """
                SELECT m.*, e.role FROM merchants m JOIN members e ON e.merchant_id = m.id
                WHERE m.id = :merchant_id AND e.user_id = :user_id AND e.state = 'ACTIVE'
                """
            ),
            {"merchant_id": merchant_id, "user_id": user_id},
        )
    ).one_or_none()
    return _merchant(row) if row is not None else None


def update_merchant(conn: Connection, merchant: Merchant, *, expected: int) -> None:
    """Write what may change of a merchant. Raises ConcurrentUpdate."""
    conn.write(
        text(
            """
            UPDATE merchants SET display_name = :name, version = :version, update_time = :now
            WHERE id = :id AND version = :expected
            """
        ),
        {
            "name": merchant.display_name,
            "version": merchant.version,
            "now": merchant.update_time,
            "id": merchant.id,
            "expected": expected,
        },
        one_of=merchant.id,
    )


async def merchant(conn: Connection, merchant_id: str) -> Merchant | None:
    """Return a merchant, for its own API key."""
    row = (
        await conn.execute(text("SELECT *, '' AS role FROM merchants WHERE id = :id"), {"id": merchant_id})
    ).one_or_none()
    return _merchant(row) if row is not None else None


async def merchants_of_user(conn: Connection, user_id: str, *, before: str, limit: int) -> list[Merchant]:
    """Return the merchants that the user is a member of, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT m.*, e.role FROM members e JOIN merchants m ON m.id = e.merchant_id
            WHERE e.user_id = :user_id AND e.state = 'ACTIVE' AND m.id < :before ORDER BY m.id DESC LIMIT :limit
            """
        ),
        {"user_id": user_id, "before": before, "limit": limit},
    )
    return [_merchant(row) for row in rows]


def _merchant(row: Row) -> Merchant:
    return Merchant(
        id=row.id,
        display_name=row.display_name,
        country=row.country,
        default_currency=row.default_currency,
        role=row.role,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
