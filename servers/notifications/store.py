"""The SQL of the notifications domain."""

from __future__ import annotations

import json
from datetime import datetime

from servers.notifications.domain import Email, EmailKind, EmailState
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


async def insert_email(conn: Connection, email: Email, event_id: str) -> bool:
    """Insert a mail. False where the event has its mail to this recipient already."""
    done = await conn.execute(
        text(
            """
            INSERT INTO emails (id, event_id, recipient, kind, user_id, resource_id, facts, state, version, create_time,
                                update_time)
            VALUES (:id, :event_id, :recipient, :kind, :user_id, :resource_id, CAST(:facts AS jsonb), :state, :version,
                    :create_time, :create_time)
            ON CONFLICT (event_id, recipient) DO NOTHING
            """
        ),
        {
            "id": email.id,
            "event_id": event_id,
            "recipient": email.user_id or email.resource_id,
            "kind": email.kind.value,
            "user_id": email.user_id,
            "resource_id": email.resource_id,
            "facts": json.dumps(dict(email.facts)),
            "state": email.state.value,
            "version": email.version,
            "create_time": email.create_time,
        },
    )
    return bool(done.rowcount)


async def email(conn: Connection, email_id: str, *, lock: bool = False) -> Email:
    """Return a mail."""
    suffix = " FOR UPDATE" if lock else ""
    return _email((await conn.execute(text(f"SELECT * FROM emails WHERE id = :id{suffix}"), {"id": email_id})).one())


async def emails(conn: Connection, user_id: str, *, before: str, limit: int) -> list[Email]:
    """Return the mails to a user, newest first."""
    rows = await conn.execute(
        text("SELECT * FROM emails WHERE user_id = :user_id AND id < :before ORDER BY id DESC LIMIT :limit"),
        {"user_id": user_id, "before": before, "limit": limit},
    )
    return [_email(row) for row in rows]


def save_email(conn: Connection, email: Email, *, expected: int, error: str) -> None:
    """Write the state of a mail. Raises ConcurrentUpdate."""
    conn.write(
        text(
            """
            UPDATE emails SET state = :state, error = :error, version = :version, update_time = :now
            WHERE id = :id AND version = :expected
            """
        ),
        {
            "state": email.state.value,
            "error": error,
            "version": email.version,
            "now": email.update_time,
            "id": email.id,
            "expected": expected,
        },
        one_of=email.id,
    )


async def count_try(conn: Connection, email_id: str) -> int:
    """Note that a mail is about to be sent. Returns how often it was tried, this time included."""
    found = await conn.execute(
        text("UPDATE emails SET tries = tries + 1 WHERE id = :id RETURNING tries"), {"id": email_id}
    )
    tries: int = found.scalar_one()
    return tries


async def new_device(conn: Connection, user_id: str, device: str, now: datetime) -> bool:
    """Remember a user's device. Tells whether it is new and not the user's first one."""
    first = not await conn.scalar(text("SELECT 1 FROM devices WHERE user_id = :user LIMIT 1"), {"user": user_id})
    done = await conn.execute(
        text(
            "INSERT INTO devices (user_id, device, first_seen_time) VALUES (:user, :device, :now) ON CONFLICT DO NOTHING"
        ),
        {"user": user_id, "device": device, "now": now},
    )
    return bool(done.rowcount) and not first


def _email(row: Row) -> Email:
    return Email(
        id=row.id,
        kind=EmailKind(row.kind),
        user_id=row.user_id,
        resource_id=row.resource_id,
        facts=row.facts,
        state=EmailState(row.state),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
