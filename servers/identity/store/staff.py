"""The SQL of staff."""

from __future__ import annotations

from servers.identity.domain import StaffMember, StaffState
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text

_INSERT = text(
    """
    INSERT INTO staff (user_id, id, role, state, sealed_secret, last_step, version, create_time, update_time)
    VALUES (:user_id, :id, :role, :state, :secret, :step, :version, :now, :now)
    """
)
_UPDATE = text(
    """
    UPDATE staff SET role = :role, state = :state, sealed_secret = :secret, last_step = :step, version = :version,
                     update_time = :now
    WHERE user_id = :user_id AND version = :version - 1
    """
)
_SELECT = "SELECT s.*, u.email FROM staff s JOIN users u ON u.id = s.user_id"


async def staff_member(conn: Connection, user_id: str, *, lock: bool = False) -> StaffMember | None:
    """Return what a user is among the staff."""
    suffix = " FOR UPDATE OF s" if lock else ""
    row = (await conn.execute(text(f"{_SELECT} WHERE s.user_id = :id{suffix}"), {"id": user_id})).one_or_none()
    return _member(row) if row is not None else None


async def staff(conn: Connection, *, before: str, limit: int) -> list[StaffMember]:
    """Return the staff, newest first."""
    rows = await conn.execute(
        text(f"{_SELECT} WHERE s.user_id < :before ORDER BY s.user_id DESC LIMIT :limit"),
        {"before": before, "limit": limit},
    )
    return [_member(row) for row in rows]


def save_staff_member(conn: Connection, member: StaffMember) -> None:
    """Insert a new staff member, or write what changed of one. Raises ConcurrentUpdate."""
    statement = _INSERT if member.version == 1 else _UPDATE
    conn.write(
        statement,
        {
            "user_id": member.user_id,
            "id": member.id,
            "role": member.role,
            "state": member.state.value,
            "secret": member.sealed_secret,
            "step": member.last_step,
            "version": member.version,
            "now": member.update_time,
        },
        one_of=member.id,
    )


async def use_staff_code(conn: Connection, user_id: str, step: int) -> bool:
    """Use up the codes up to a step. False where somebody else did so first."""
    done = await conn.execute(
        text("UPDATE staff SET last_step = :step WHERE user_id = :id AND last_step < :step"),
        {"id": user_id, "step": step},
    )
    return bool(done.rowcount)


def _member(row: Row) -> StaffMember:
    return StaffMember(
        id=row.id,
        user_id=row.user_id,
        email=row.email,
        role=row.role,
        state=StaffState(row.state),
        sealed_secret=bytes(row.sealed_secret),
        last_step=row.last_step,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
