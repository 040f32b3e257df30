"""The SQL of the identity domain."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from servers.identity.domain import ApiKey, ApiKeyState, Merchant, Session, SessionState, User


def email_key(email: str) -> str:
    """Return what makes two spellings of an address the same account."""
    return unicodedata.normalize("NFKC", email).casefold()


async def insert_user(conn: AsyncConnection, user: User) -> bool:
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


async def user_by_email(conn: AsyncConnection, email: str) -> User | None:
    """Return the user with an address."""
    row = (
        await conn.execute(text("SELECT * FROM users WHERE email_key = :key"), {"key": email_key(email)})
    ).one_or_none()
    return _user(row) if row is not None else None


async def user(conn: AsyncConnection, user_id: str) -> User:
    """Return a user who exists."""
    return _user((await conn.execute(text("SELECT * FROM users WHERE id = :id"), {"id": user_id})).one())


async def insert_session(conn: AsyncConnection, session: Session) -> None:
    """Insert a session."""
    await conn.execute(
        text(
            """
            INSERT INTO sessions (user_id, id, state, expire_time, version, create_time, update_time)
            VALUES (:user_id, :id, :state, :expire_time, :version, :create_time, :create_time)
            """
        ),
        {
            "user_id": session.user_id,
            "id": session.id,
            "state": session.state.value,
            "expire_time": session.expire_time,
            "version": session.version,
            "create_time": session.create_time,
        },
    )


async def session(conn: AsyncConnection, user_id: str, session_id: str, *, lock: bool = False) -> Session | None:
    """Return a user's session."""
    row = (
        await conn.execute(
            text(f"SELECT * FROM sessions WHERE user_id = :user_id AND id = :id{' FOR UPDATE' if lock else ''}"),
            {"user_id": user_id, "id": session_id},
        )
    ).one_or_none()
    return _session(row) if row is not None else None


async def revoke_session(conn: AsyncConnection, session: Session, now: datetime) -> None:
    """Write that a session has ended; its row is locked by the caller."""
    await conn.execute(
        text(
            """
            UPDATE sessions SET state = 'REVOKED', version = version + 1, update_time = :now
            WHERE user_id = :user_id AND id = :id AND version = :expected
            """
        ),
        {"now": now, "user_id": session.user_id, "id": session.id, "expected": session.version},
    )


async def insert_refresh_token(conn: AsyncConnection, hashed: bytes, session: Session) -> None:
    """Store a refresh token of a session."""
    await conn.execute(
        text(
            """
            INSERT INTO refresh_tokens (hash, user_id, session_id, expire_time)
            VALUES (:hash, :user_id, :session_id, :expire_time)
            """
        ),
        {"hash": hashed, "user_id": session.user_id, "session_id": session.id, "expire_time": session.expire_time},
    )


async def use_refresh_token(conn: AsyncConnection, hashed: bytes, now: datetime) -> tuple[Session, bool] | None:
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


async def insert_merchant(conn: AsyncConnection, merchant: Merchant, owner_id: str) -> None:
    """Insert a merchant with its owner."""
    await conn.execute(
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
    await conn.execute(
        text("INSERT INTO members VALUES (:merchant_id, :user_id, 'owner', :now)"),
        {"merchant_id": merchant.id, "user_id": owner_id, "now": merchant.create_time},
    )


async def merchant_of_member(conn: AsyncConnection, merchant_id: str, user_id: str) -> Merchant | None:
    """Return a merchant that the user is a member of, with the role."""
    row = (
        await conn.execute(
            text(
                """
                SELECT m.*, e.role FROM merchants m JOIN members e ON e.merchant_id = m.id
                WHERE m.id = :merchant_id AND e.user_id = :user_id
                """
            ),
            {"merchant_id": merchant_id, "user_id": user_id},
        )
    ).one_or_none()
    return _merchant(row) if row is not None else None


async def merchant(conn: AsyncConnection, merchant_id: str) -> Merchant | None:
    """Return a merchant, for its own API key."""
    row = (
        await conn.execute(text("SELECT *, '' AS role FROM merchants WHERE id = :id"), {"id": merchant_id})
    ).one_or_none()
    return _merchant(row) if row is not None else None


async def merchants_of_user(conn: AsyncConnection, user_id: str, *, before: str, limit: int) -> list[Merchant]:
    """Return the merchants that the user is a member of, newest first."""
    rows = await conn.execute(
        text(
            """
            SELECT m.*, e.role FROM members e JOIN merchants m ON m.id = e.merchant_id
            WHERE e.user_id = :user_id AND m.id < :before ORDER BY m.id DESC LIMIT :limit
            """
        ),
        {"user_id": user_id, "before": before, "limit": limit},
    )
    return [_merchant(row) for row in rows]


async def insert_api_key(conn: AsyncConnection, key: ApiKey, hashed: bytes) -> None:
    """Insert an API key."""
    await conn.execute(
        text(
            """
            INSERT INTO api_keys (merchant_id, id, secret_hash, secret_prefix, display_name, scopes, expire_time, state,
                                  version, create_time, update_time)
            VALUES (:merchant_id, :id, :hash, :prefix, :name, :scopes, :expire_time, :state, :version, :create_time,
                    :update_time)
            """
        ),
        {
            "merchant_id": key.merchant_id,
            "id": key.id,
            "hash": hashed,
            "prefix": key.secret_prefix,
            "name": key.display_name,
            "scopes": list(key.scopes),
            "expire_time": key.expire_time,
            "state": key.state.value,
            "version": key.version,
            "create_time": key.create_time,
            "update_time": key.update_time,
        },
    )


async def api_key_by_hash(conn: AsyncConnection, hashed: bytes) -> ApiKey | None:
    """Return the API key with a secret's hash."""
    row = (await conn.execute(text("SELECT * FROM api_keys WHERE secret_hash = :hash"), {"hash": hashed})).one_or_none()
    return _api_key(row) if row is not None else None


async def api_key(conn: AsyncConnection, merchant_id: str, key_id: str) -> ApiKey | None:
    """Return a merchant's API key, locked."""
    row = (
        await conn.execute(
            text("SELECT * FROM api_keys WHERE merchant_id = :merchant_id AND id = :id FOR UPDATE"),
            {"merchant_id": merchant_id, "id": key_id},
        )
    ).one_or_none()
    return _api_key(row) if row is not None else None


async def api_keys(conn: AsyncConnection, merchant_id: str, *, before: str, limit: int) -> list[ApiKey]:
    """Return a merchant's API keys, newest first."""
    rows = await conn.execute(
        text("SELECT * FROM api_keys WHERE merchant_id = :merchant_id AND id < :before ORDER BY id DESC LIMIT :limit"),
        {"merchant_id": merchant_id, "before": before, "limit": limit},
    )
    return [_api_key(row) for row in rows]


async def revoke_api_key(conn: AsyncConnection, key: ApiKey, now: datetime) -> None:
    """Write that a key is revoked; its row is locked by the caller."""
    await conn.execute(
        text(
            """
            UPDATE api_keys SET state = 'REVOKED', version = version + 1, update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
            """
        ),
        {"now": now, "merchant_id": key.merchant_id, "id": key.id, "expected": key.version},
    )


async def touch_api_keys(conn: AsyncConnection, used: dict[str, tuple[str, datetime]]) -> None:
    """Note when keys were last used: {key id: (merchant id, time)}."""
    await conn.execute(
        text("UPDATE api_keys SET last_used_time = :time WHERE merchant_id = :merchant_id AND id = :id"),
        [{"id": key, "merchant_id": merchant_id, "time": time} for key, (merchant_id, time) in sorted(used.items())],
    )


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        email=row.email,
        display_name=row.display_name,
        password_hash=bytes(row.password_hash),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _session(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        state=SessionState(row.state),
        version=row.version,
        create_time=row.create_time,
        expire_time=row.expire_time,
    )


def _merchant(row: Row[Any]) -> Merchant:
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


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        merchant_id=row.merchant_id,
        display_name=row.display_name,
        scopes=tuple(row.scopes),
        secret_prefix=row.secret_prefix,
        expire_time=row.expire_time,
        last_used_time=row.last_used_time,
        state=ApiKeyState(row.state),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )
