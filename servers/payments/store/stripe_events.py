"""The SQL of what Stripe tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeEvent:
    """An event as it is stored."""

    id: str
    type: str
    object_id: str
    state: str
    source: str
    tries: int
    error: str
    receive_time: datetime
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCursor:
    """How far Stripe's list of events was looked through."""

    seen_time: datetime
    """Every event up to here was seen."""
    target_time: datetime | None
    """Up to where the round under way goes; None between rounds."""
    after_id: str
    """Where the round under way goes on, from newer to older; "" between rounds."""
    complete_time: datetime
    """When the last round ended."""


async def insert_stripe_event(conn: Connection, parameters: dict[str, Any]) -> bool:
    """Store an event. False where it is stored already."""
    done = await conn.execute(
        text(
            """
            INSERT INTO stripe_events (id, type, object_id, payment_intent_id, refund_id, setup_intent_id, body, state, source,
                                       receive_time)
            VALUES (:id, :type, :object_id, :intent, :refund_id, :setup_id, :body, :state, :source, :now)
            ON CONFLICT (id) DO NOTHING
            """
        ),
        parameters,
    )
    return bool(done.rowcount)


async def try_stripe_event(conn: Connection, event_id: str) -> Row | None:
    """Count one more try of an event that waits, and return it; None where nothing waits."""
    return (
        await conn.execute(
            text(
                """
                UPDATE stripe_events SET tries = tries + 1 WHERE id = :id AND state = 'STORED'
                RETURNING type, object_id, payment_intent_id, refund_id, setup_intent_id, body
                """
            ),
            {"id": event_id},
        )
    ).one_or_none()


async def settle_stripe_event(conn: Connection, event_id: str, state: str, error: str) -> bool:
    """Note what became of an event that waits."""
    done = await conn.execute(
        text("UPDATE stripe_events SET state = :state, error = :error WHERE id = :id AND state = 'STORED'"),
        {"state": state, "error": error, "id": event_id},
    )
    return bool(done.rowcount)


async def replay_stripe_events(conn: Connection, *, event_id: str, limit: int) -> list[str]:
    """Let an event wait again, or dead ones where none is named. Returns their ids."""
    which = (
        "id = :id" if event_id else "id IN (SELECT id FROM stripe_events WHERE state = 'DEAD' ORDER BY id LIMIT :limit)"
    )
    rows = await conn.execute(
        text(f"UPDATE stripe_events SET state = 'STORED', tries = 0, error = '' WHERE {which} RETURNING id"),
        {"id": event_id, "limit": limit},
    )
    return list(rows.scalars())


async def stripe_event(conn: Connection, event_id: str) -> StripeEvent | None:
    """Return an event."""
    row = (await conn.execute(text("SELECT * FROM stripe_events WHERE id = :id"), {"id": event_id})).one_or_none()
    return _event(row) if row is not None else None


async def stripe_events(
    conn: Connection, *, state: str, before: tuple[datetime, str] | None, limit: int
) -> list[StripeEvent]:
    """Return events, those that came last first."""
    place = "" if before is None else " AND (receive_time, id) < (:time, :id)"
    rows = await conn.execute(
        text(
            f"SELECT * FROM stripe_events WHERE (:state = '' OR state = :state){place}"
            " ORDER BY receive_time DESC, id DESC LIMIT :limit"
        ),
        {
            "state": state,
            "limit": limit,
            "time": before[0] if before is not None else None,
            "id": before[1] if before is not None else "",
        },
    )
    return [_event(row) for row in rows]


async def known_stripe_events(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that are stored."""
    rows = await conn.execute(text("SELECT id FROM stripe_events WHERE id = ANY(:ids)"), {"ids": list(ids)})
    return set(rows.scalars())


async def event_cursor(conn: Connection, now: datetime) -> EventCursor:
    """Return how far the list of events was looked through; a platform that starts looks from now on."""
    conn.write(
        text(
            """
            INSERT INTO stripe_event_cursor (seen_time, complete_time) VALUES (:now, :now) ON CONFLICT (one) DO NOTHING
            """
        ),
        {"now": now},
    )
    row = (await conn.execute(text("SELECT * FROM stripe_event_cursor"))).one()
    return EventCursor(
        seen_time=row.seen_time,
        target_time=row.target_time,
        after_id=row.after_id,
        complete_time=row.complete_time,
    )


async def move_event_cursor(conn: Connection, before: EventCursor, after: EventCursor) -> bool:
    """Move the cursor. False where somebody else has."""
    done = await conn.execute(
        text(
            """
            UPDATE stripe_event_cursor SET seen_time = :seen, target_time = :target, after_id = :after,
                                           complete_time = :complete
            WHERE seen_time = :seen_before AND after_id = :after_before
            """
        ),
        {
            "seen": after.seen_time,
            "target": after.target_time,
            "after": after.after_id,
            "complete": after.complete_time,
            "seen_before": before.seen_time,
            "after_before": before.after_id,
        },
    )
    return bool(done.rowcount)


def _event(row: Row) -> StripeEvent:
    return StripeEvent(
        id=row.id,
        type=row.type,
        object_id=row.object_id,
        state=row.state,
        source=row.source,
        tries=row.tries,
        error=row.error,
        receive_time=row.receive_time,
        body=bytes(row.body),
    )
