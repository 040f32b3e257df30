"""The SQL of setup intents."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from servers.payments.domain import SETUP, NextAction, SetupIntent, SetupState, Usage
from servers.payments.store.rows import DECLINE_COLUMNS, NOTHING_ASKED, action_in, decline_in, decline_values, manner_of
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_setup(conn: Connection, setup: SetupIntent) -> None:
    """Insert a new setup intent."""
    conn.write(
        text(
            """
            INSERT INTO setup_intents (owner_id, id, merchant_id, usage, state, version, create_time, update_time)
            VALUES (:owner_id, :id, :merchant_id, :usage, :state, :version, :create_time, :update_time)
            """
        ),
        {
            "owner_id": setup.owner_id,
            "id": setup.id,
            "merchant_id": setup.merchant_id,
            "usage": setup.usage.value,
            "state": setup.state.value,
            "version": setup.version,
            "create_time": setup.create_time,
            "update_time": setup.update_time,
        },
    )


async def setup(conn: Connection, setup_id: str, *, lock: bool = False) -> SetupIntent | None:
    """Return a setup intent; the caller checks whose it is."""
    suffix = " FOR UPDATE" if lock else ""
    row = (
        await conn.execute(text(f"SELECT * FROM setup_intents WHERE id = :id{suffix}"), {"id": setup_id})
    ).one_or_none()
    return _setup(row) if row is not None else None


def advance_setup(
    conn: Connection,
    setup: SetupIntent,
    trigger: str,
    *,
    now: datetime,
    next_action: NextAction = NOTHING_ASKED,
    **changes: Any,
) -> SetupIntent:
    """Walk one arrow of the setup intent's machine; what the cardholder was asked for before is over with it. Raises
    SetupStateInvalid, or ConcurrentUpdate where the version moved."""
    moved = replace(
        setup,
        state=SETUP.arrow(setup.state, trigger, setup.id).target,
        version=setup.version + 1,
        update_time=now,
        next_action=next_action,
        **changes,
    )
    _write(conn, moved, expected_version=setup.version)
    return moved


def note_setup(conn: Connection, setup: SetupIntent, **changes: Any) -> SetupIntent:
    """Note what is known of a setup intent whose state stays: not a change, so no version and no event."""
    noted = replace(setup, **changes)
    _write(conn, noted, expected_version=setup.version)
    return noted


def _write(conn: Connection, setup: SetupIntent, *, expected_version: int) -> None:
    conn.write(
        text(
            f"""
            UPDATE setup_intents SET state = :state, uncertain = :uncertain, confirms = :confirms, stripe_id = :stripe_id,
                   stripe_payment_method_id = :stripe_method, return_url = :return_url, use_stripe_sdk = :sdk,
                   next_action_url = :url, next_action_secret = :secret, {DECLINE_COLUMNS},
                   payment_method_id = :method, mandate_id = :mandate, version = :version,
                   update_time = :update_time
            WHERE owner_id = :owner_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": setup.state.value,
            "uncertain": setup.uncertain,
            "confirms": setup.confirms,
            "stripe_id": setup.stripe_id,
            "stripe_method": setup.stripe_payment_method_id,
            "return_url": setup.manner.return_url,
            "sdk": setup.manner.use_stripe_sdk,
            "url": setup.next_action.url,
            "secret": setup.next_action.sealed_secret or None,
            **decline_values(setup.last_decline),
            "method": setup.payment_method_id,
            "mandate": setup.mandate_id,
            "version": setup.version,
            "update_time": setup.update_time,
            "owner_id": setup.owner_id,
            "id": setup.id,
            "expected": expected_version,
        },
        one_of=setup.id,
    )


def _setup(row: Row) -> SetupIntent:
    return SetupIntent(
        id=row.id,
        owner_id=row.owner_id,
        merchant_id=row.merchant_id,
        usage=Usage(row.usage),
        state=SetupState(row.state),
        uncertain=row.uncertain,
        confirms=row.confirms,
        stripe_id=row.stripe_id,
        stripe_payment_method_id=row.stripe_payment_method_id,
        manner=manner_of(row, save_for=Usage(row.usage), off_session=False),
        next_action=action_in(row),
        last_decline=decline_in(row),
        payment_method_id=row.payment_method_id,
        mandate_id=row.mandate_id,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
