"""The SQL of sessions and refresh tokens."""

from __future__ import annotations

from datetime import datetime

from servers.identity.domain import Session, SessionState
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_session(conn: Connection, session: Session) -> None:
    """Insert a session."""
    conn.write(
        text(
            """
            INSERT INTO sessions (user_id, id, state, expire_time, last_used_time, user_agent, address, version, create_time,
                                  update_time)
            VALUES (:user_id, :id, :state, :expire_time, :create_time, :user_agent, :address, :version, :create_time,
                    :create_time)
            """
        ),
        {
            "user_id": session.user_id,
            "id": session.id,
            "state": session.state.value,
            "expire_time": session.expire_time,
            "user_agent": session.user_agent,
            "address": session.address,
            "version": session.version,
            "create_time": session.create_time,
        },
    )


async def session(conn: Connection, user_id: str, session_id: str, *, lock: bool = False) -> Session | None:
    """Return a user's session."""
    row = (
        await conn.execute(
            text(f"SELECT * FROM sessions WHERE user_id = :user_id AND id = :id{' FOR UPDATE' if lock else ''}"),
            {"user_id": user_id, "id": session_id},
        )
    ).one_or_none()
    return _session(row) if row is not None else None


async def sessions(conn: Connection, user_id: str, *, now: datetime, before: str, limit: int) -> list[Session]:
    """Return a user's sessions that are alive, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT * FROM sessions WHERE user_id = :user_id AND state = 'ACTIVE' AND expire_time > :now AND id < :before
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"user_id": user_id, "now": now, "before": before, "limit": limit},
    )
    return [_session(row) for row in rows]


async def active_sessions(conn: Connection, user_id: str) -> list[Session]:
    """Return every session of a user that was not ended, locked in the order of their ids."""
    rows = await conn.execute(
        text("SELECT * FROM sessions WHERE user_id = :user_id AND state = 'ACTIVE' ORDER BY id FOR UPDATE"),
        {"user_id": user_id},
    )
    return [_session(row) for row in rows]


def touch_session(conn: Connection, session: Session, now: datetime) -> None:
    """Note that a token of the session was issued: no change of state, so no version and no event."""
    conn.write(
        text("UPDATE sessions SET last_used_time = :now WHERE user_id = :user_id AND id = :id"),
        {"now": now, "user_id": session.user_id, "id": session.id},
    )


def revoke_session(conn: Connection, session: Session, now: datetime) -> None:
    """Write that a session has ended; its row is locked by the caller."""
    conn.write(
        text(
            """
            UPDATE sessions SET state = 'REVOKED', version = version + 1, update_time = :now
            WHERE user_id = :user_id AND id = :id AND version = :expected
            """
        ),
        {"now": now, "user_id": session.user_id, "id": session.id, "expected": session.version},
    )


def insert_refresh_token(conn: Connection, hashed: bytes, session: Session) -> None:
    """Store a refresh token of a session."""
    conn.write(
        text(
            """
            INSERT INTO refresh_tokens (hash, user_id, session_id, expire_time)
            VALUES (:hash, :user_id, :session_id, :expire_time)
            """
        ),
        {"hash": hashed, "user_id": session.user_id, "session_id": session.id, "expire_time": session.expire_time},
    )


async def use_refresh_token(conn: Connection, hashed: bytes, now: datetime) -> tuple[Session, bool] | None:
    """Use a refresh token up. Returns its session, locked, and whether this was the first use; None for no token of ours."""
    row = (
        await conn.execute(
            text("SELECT user_id, session_id, expire_time FROM refresh_tokens WHERE hash = :hash"), {"hash": hashed}
        )
    ).one_or_none()
    if row is None or row.expire_time <= now:
        return None
    # The session's lock puts parallel uses in line: exactly one of them finds the token unused.
    found = await session(conn, row.user_id, row.session_id, lock=True)
    first = await conn.execute(
        text("UPDATE refresh_tokens SET used = true WHERE hash = :hash AND NOT used"), {"hash": hashed}
    )
    return (found, bool(first.rowcount)) if found is not None else None


def _session(row: Row) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        state=SessionState(row.state),
        version=row.version,
        create_time=row.create_time,
        expire_time=row.expire_time,
        last_used_time=row.last_used_time,
        user_agent=row.user_agent,
        address=row.address,
    )
