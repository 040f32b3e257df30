"""The SQL of payment methods and of Stripe customers."""

from __future__ import annotations

from datetime import datetime

from servers.payments.domain import (
    Card,
    MethodState,
    PaymentMethod,
)
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


async def stripe_customer(conn: Connection, owner_id: str) -> str | None:
    """Return the Stripe customer of a user."""
    found: str | None = await conn.scalar(
        text("SELECT stripe_id FROM stripe_customers WHERE owner_id = :owner"), {"owner": owner_id}
    )
    return found


async def save_stripe_customer(conn: Connection, owner_id: str, stripe_id: str, now: datetime) -> str:
    """Remember the Stripe customer of a user. Returns the one that was remembered first."""
    conn.write(
        text("INSERT INTO stripe_customers VALUES (:owner, :stripe_id, :now) ON CONFLICT (owner_id) DO NOTHING"),
        {"owner": owner_id, "stripe_id": stripe_id, "now": now},
    )
    return await stripe_customer(conn, owner_id) or stripe_id


def insert_method(conn: Connection, method: PaymentMethod) -> None:
    """Insert a payment method that is about to be attached, or that Stripe has attached itself."""
    conn.write(
        text(
            """
            INSERT INTO payment_methods (owner_id, id, stripe_id, state, brand, last4, exp_month, exp_year, funding, country,
                                         version, create_time, update_time)
            VALUES (:owner_id, :id, :stripe_id, :state, :brand, :last4, :exp_month, :exp_year, :funding, :country, :version,
                    :create_time, :update_time)
            """
        ),
        {
            "owner_id": method.owner_id,
            "id": method.id,
            "stripe_id": method.stripe_id,
            "state": method.state.value,
            **_card_columns(method.card),
            "version": method.version,
            "create_time": method.create_time,
            "update_time": method.update_time,
        },
    )


async def method(conn: Connection, owner_id: str, method_id: str, *, lock: bool = False) -> PaymentMethod | None:
    """Return one of a user's payment methods."""
    suffix = " FOR UPDATE" if lock else ""
    row = (
        await conn.execute(
            text(f"SELECT * FROM payment_methods WHERE owner_id = :owner AND id = :id{suffix}"),
            {"owner": owner_id, "id": method_id},
        )
    ).one_or_none()
    return _method(row) if row is not None else None


async def method_by_stripe_id(conn: Connection, owner_id: str, stripe_id: str) -> PaymentMethod | None:
    """Return a user's attached payment method by Stripe's id of it."""
    row = (
        await conn.execute(
            text(
                "SELECT * FROM payment_methods WHERE owner_id = :owner AND stripe_id = :stripe_id AND state = 'ATTACHED'"
            ),
            {"owner": owner_id, "stripe_id": stripe_id},
        )
    ).one_or_none()
    return _method(row) if row is not None else None


async def method_by_id(conn: Connection, method_id: str) -> PaymentMethod:
    """Return a payment method for the janitor, who acts for nobody."""
    row = (await conn.execute(text("SELECT * FROM payment_methods WHERE id = :id"), {"id": method_id})).one()
    return _method(row)


async def methods(conn: Connection, owner_id: str, *, before: str, limit: int) -> list[PaymentMethod]:
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


async def default_method(conn: Connection, owner_id: str) -> PaymentMethod | None:
    """Return the card that a user made the default, locked; every change of a default passes here and waits for the others."""
    await conn.execute(text("SELECT 1 FROM stripe_customers WHERE owner_id = :owner FOR UPDATE"), {"owner": owner_id})
    found = await conn.execute(
        text("SELECT * FROM payment_methods WHERE owner_id = :owner AND is_default FOR UPDATE"), {"owner": owner_id}
    )
    row = found.one_or_none()
    return _method(row) if row is not None else None


async def method_in_use(conn: Connection, method: PaymentMethod) -> bool:
    """Tell whether an attempt with a card is under way."""
    return bool(
        await conn.scalar(
            text(
                """
                SELECT 1 FROM attempts WHERE payment_method_id = :id
                  AND state IN ('CREATED', 'SENT', 'PENDING', 'UNKNOWN', 'NEEDS_OPERATOR', 'REQUIRES_ACTION', 'IN_REVIEW')
                LIMIT 1
                """
            ),
            {"id": method.id},
        )
    )


def update_method(conn: Connection, method: PaymentMethod, *, expected_version: int) -> None:
    """Write a payment method's new state. Raises ConcurrentUpdate."""
    conn.write(
        text(
            """
            UPDATE payment_methods SET state = :state, stripe_id = :stripe_id, brand = :brand, last4 = :last4,
                   is_default = :is_default, exp_month = :exp_month, exp_year = :exp_year, funding = :funding, country = :country,
                   version = :version, update_time = :update_time
            WHERE owner_id = :owner_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": method.state.value,
            "stripe_id": method.stripe_id,
            "is_default": method.is_default,
            **_card_columns(method.card),
            "version": method.version,
            "update_time": method.update_time,
            "owner_id": method.owner_id,
            "id": method.id,
            "expected": expected_version,
        },
        one_of=method.id,
    )


def _card_columns(card: Card | None) -> dict[str, str | int | None]:
    if card is None:
        return dict.fromkeys(("brand", "last4", "exp_month", "exp_year", "funding", "country"))
    return {
        "brand": card.brand,
        "last4": card.last4,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "funding": card.funding,
        "country": card.country,
    }


def _method(row: Row) -> PaymentMethod:
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
        is_default=row.is_default,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
