"""The SQL of users."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from servers.identity.domain import TokenPurpose, User
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def email_key(email: str) -> str:
    """Return what makes two spellings of an address the same account."""
    return unicodedata.normalize("NFKC", email).casefold()


async def insert_user(conn: Connection, user: User) -> bool:
    """Insert a user. False where the address is taken."""
    done = await conn.execute(
        text(
            """
            INSERT INTO users (id, email, email_key, display_name, password_hash, version, create_time, update_time)
            VALUES (:id, :email, :key, :name, :hash, :version, :create_time, :update_time)
            ON CONFLICT (email_key) DO NOTHING
            """
        ),
        {
            "id": user.id,
            "email": user.email,
            "key": email_key(user.email),
            "name": user.display_name,
            "hash": user.password_hash,
            "version": user.version,
            "create_time": user.create_time,
            "update_time": user.update_time,
        },
    )
    return bool(done.rowcount)


async def user_by_email(conn: Connection, email: str) -> User | None:
    """Return the user with an address."""
    row = (
        await conn.execute(text("SELECT * FROM users WHERE email_key = :key"), {"key": email_key(email)})
    ).one_or_none()
    return _user(row) if row is not None else None


async def user(conn: Connection, user_id: str, *, lock: bool = False) -> User:
    """Return a user who exists."""
    suffix = " FOR UPDATE" if lock else ""
    return _user((await conn.execute(text(f"SELECT * FROM users WHERE id = :id{suffix}"), {"id": user_id})).one())


async def user_exists(conn: Connection, user_id: str) -> bool:
    """Tell whether there is such a user."""
    return bool(await conn.scalar(text("SELECT 1 FROM users WHERE id = :id"), {"id": user_id}))


def update_user(conn: Connection, user: User, *, expected: int) -> None:
    """Write what may change of a user. Raises ConcurrentUpdate."""
    conn.write(
        text(
            """
            UPDATE users SET display_name = :name, email_verified = :verified, password_hash = :hash, version = :version,
                             update_time = :now
            WHERE id = :id AND version = :expected
            """
        ),
        {
            "name": user.display_name,
            "verified": user.email_verified,
            "hash": user.password_hash,
            "version": user.version,
            "now": user.update_time,
            "id": user.id,
            "expected": expected,
        },
        one_of=user.id,
    )


def insert_email_token(
    conn: Connection, hashed: bytes, user_id: str, purpose: TokenPurpose, expire_time: datetime
) -> None:
    """Store a token of a mail, by its hash."""
    conn.write(
        text(
            """
            INSERT INTO email_tokens (hash, user_id, purpose, expire_time) VALUES (:hash, :user_id, :purpose, :expire_time)
            ON CONFLICT (hash) DO NOTHING
            """
        ),
        {"hash": hashed, "user_id": user_id, "purpose": purpose.value, "expire_time": expire_time},
    )


async def email_token(
    conn: Connection, hashed: bytes, purpose: TokenPurpose, now: datetime, *, unused: bool
) -> str | None:
    """Return whose token it is, locked; None where it does not work."""
    found: str | None = await conn.scalar(
        text(
            """
            SELECT user_id FROM email_tokens
            WHERE hash = :hash AND purpose = :purpose AND expire_time > :now AND NOT (used AND :unused) FOR UPDATE
            """
        ),
        {"hash": hashed, "purpose": purpose.value, "now": now, "unused": unused},
    )
    return found


def use_email_tokens(conn: Connection, user_id: str, purpose: TokenPurpose) -> None:
    """Use up every token of a purpose that a user has."""
    conn.write(
        text("UPDATE email_tokens SET used = true WHERE user_id = :user_id AND purpose = :purpose AND NOT used"),
        {"user_id": user_id, "purpose": purpose.value},
    )


async def delete_old_email_tokens(conn: Connection, now: datetime) -> int:
    """Delete tokens past their end. Returns how many."""
    gone = await conn.execute(text("DELETE FROM email_tokens WHERE expire_time < :now"), {"now": now})
    return gone.rowcount


def _user(row: Row) -> User:
    return User(
        id=row.id,
        email=row.email,
        display_name=row.display_name,
        email_verified=row.email_verified,
        password_hash=bytes(row.password_hash),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
