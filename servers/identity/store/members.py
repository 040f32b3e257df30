"""The SQL of members and invitations."""

from __future__ import annotations

from datetime import datetime

from servers.identity.domain import Invitation, InvitationState, Member, MemberState
from servers.identity.store.users import email_key
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text

_MEMBERS = """
    SELECT e.*, u.email, u.display_name FROM members e JOIN users u ON u.id = e.user_id
    WHERE e.merchant_id = :merchant_id AND
"""
_INVITATIONS = "SELECT i.*, m.display_name FROM invitations i JOIN merchants m ON m.id = i.merchant_id WHERE"

_INSERT_MEMBER = text(
    """
    INSERT INTO members (merchant_id, user_id, role, state, version, create_time)
    VALUES (:merchant_id, :user_id, :role, :state, :version, :create_time)
    """
)
_UPDATE_MEMBER = text(
    """
    UPDATE members SET role = :role, state = :state, version = :version, create_time = :create_time
    WHERE merchant_id = :merchant_id AND user_id = :user_id AND version = :version - 1
    """
)


async def lock_members(conn: Connection, merchant_id: str) -> None:
    """Put changes of a merchant's members in line: two owners who remove each other must not both succeed."""
    await conn.execute(text("SELECT 1 FROM merchants WHERE id = :id FOR UPDATE"), {"id": merchant_id})


async def member(conn: Connection, merchant_id: str, user_id: str) -> Member | None:
    """Return a member, whether active or removed."""
    found = await conn.execute(
        text(f"{_MEMBERS} e.user_id = :user_id"), {"merchant_id": merchant_id, "user_id": user_id}
    )
    row = found.one_or_none()
    return _member(row) if row is not None else None


async def members(conn: Connection, merchant_id: str, *, before: str, limit: int) -> list[Member]:
    """Return a merchant's active members, newest user first."""
    rows = await conn.execute(
        text(f"{_MEMBERS} e.state = 'ACTIVE' AND e.user_id < :before ORDER BY e.user_id DESC LIMIT :limit"),
        {"merchant_id": merchant_id, "before": before, "limit": limit},
    )
    return [_member(row) for row in rows]


async def owners(conn: Connection, merchant_id: str) -> list[Member]:
    """Return a merchant's owners."""
    rows = await conn.execute(
        text(f"{_MEMBERS} e.state = 'ACTIVE' AND e.role = 'owner' ORDER BY e.user_id"), {"merchant_id": merchant_id}
    )
    return [_member(row) for row in rows]


def save_member(conn: Connection, member: Member) -> None:
    """Insert a new member or write the next version of one; the merchant's row is locked by the caller. Raises ConcurrentUpdate."""
    statement = _INSERT_MEMBER if member.version == 1 else _UPDATE_MEMBER
    conn.write(
        statement,
        {
            "merchant_id": member.merchant_id,
            "user_id": member.user_id,
            "role": member.role,
            "state": member.state.value,
            "version": member.version,
            "create_time": member.create_time,
        },
        one_of=member.user_id,
    )


async def insert_invitation(conn: Connection, invitation: Invitation) -> bool:
    """Insert an invitation. False where one to the address is open."""
    done = await conn.execute(
        text(
            """
            INSERT INTO invitations (merchant_id, id, email, email_key, role, state, invited_by, expire_time, version,
                                     create_time, update_time)
            VALUES (:merchant_id, :id, :email, :key, :role, :state, :invited_by, :expire_time, :version, :create_time,
                    :create_time)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "merchant_id": invitation.merchant_id,
            "id": invitation.id,
            "email": invitation.email,
            "key": email_key(invitation.email),
            "role": invitation.role,
            "state": invitation.state.value,
            "invited_by": invitation.invited_by,
            "expire_time": invitation.expire_time,
            "version": invitation.version,
            "create_time": invitation.create_time,
        },
    )
    return bool(done.rowcount)


async def invitation(conn: Connection, invitation_id: str, *, lock: bool = False) -> Invitation | None:
    """Return an invitation; the caller checks whose it is."""
    suffix = " FOR UPDATE OF i" if lock else ""
    row = (await conn.execute(text(f"{_INVITATIONS} i.id = :id{suffix}"), {"id": invitation_id})).one_or_none()
    return _invitation(row) if row is not None else None


async def open_invitation(conn: Connection, merchant_id: str, email: str) -> Invitation | None:
    """Return the open invitation to an address, locked."""
    found = await conn.execute(
        text(
            f"{_INVITATIONS} i.merchant_id = :merchant_id AND i.email_key = :key AND i.state = 'OPEN' FOR UPDATE OF i"
        ),
        {"merchant_id": merchant_id, "key": email_key(email)},
    )
    row = found.one_or_none()
    return _invitation(row) if row is not None else None


async def invitations(
    conn: Connection, *, now: datetime, before: str, limit: int, merchant_id: str = "", email: str = ""
) -> list[Invitation]:
    """Return the open invitations of a merchant, or to an address, newest first."""
    whose = "i.merchant_id = :merchant_id" if merchant_id else "i.email_key = :key"
    rows = await conn.execute(
        text(
            f"{_INVITATIONS} {whose} AND i.state = 'OPEN' AND i.expire_time > :now AND i.id < :before "
            "ORDER BY i.id DESC LIMIT :limit"
        ),
        {"merchant_id": merchant_id, "key": email_key(email), "now": now, "before": before, "limit": limit},
    )
    return [_invitation(row) for row in rows]


async def overdue_invitations(conn: Connection, now: datetime) -> list[Invitation]:
    """Return open invitations past their end, locked, at most 100."""
    rows = await conn.execute(
        text(f"{_INVITATIONS} i.state = 'OPEN' AND i.expire_time <= :now LIMIT 100 FOR UPDATE OF i SKIP LOCKED"),
        {"now": now},
    )
    return [_invitation(row) for row in rows]


def update_invitation(conn: Connection, invitation: Invitation, *, expected: int) -> None:
    """Write the state of an invitation. Raises ConcurrentUpdate."""
    conn.write(
        text(
            """
            UPDATE invitations SET state = :state, version = :version, update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
            """
        ),
        {
            "state": invitation.state.value,
            "version": invitation.version,
            "now": invitation.update_time,
            "merchant_id": invitation.merchant_id,
            "id": invitation.id,
            "expected": expected,
        },
        one_of=invitation.id,
    )


def _member(row: Row) -> Member:
    return Member(
        merchant_id=row.merchant_id,
        user_id=row.user_id,
        email=row.email,
        display_name=row.display_name,
        role=row.role,
        state=MemberState(row.state),
        version=row.version,
        create_time=row.create_time,
    )


def _invitation(row: Row) -> Invitation:
    return Invitation(
        id=row.id,
        merchant_id=row.merchant_id,
        merchant_display_name=row.display_name,
        email=row.email,
        role=row.role,
        state=InvitationState(row.state),
        invited_by=row.invited_by,
        expire_time=row.expire_time,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
