"""The SQL of API keys."""

from __future__ import annotations

from datetime import datetime

from servers.identity.domain import ApiKey, ApiKeyKind, ApiKeyState
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


def insert_api_key(conn: Connection, key: ApiKey, hashed: bytes) -> None:
    """Insert an API key."""
    conn.write(
        text(
            """
            INSERT INTO api_keys (merchant_id, id, kind, publishable_key, secret_hash, secret_prefix, display_name, scopes,
                                  expire_time, state, version, create_time, update_time)
            VALUES (:merchant_id, :id, :kind, nullif(:publishable_key, ''), :hash, :prefix, :name, :scopes, :expire_time,
                    :state, :version, :create_time, :update_time)
            """
        ),
        {
            "merchant_id": key.merchant_id,
            "id": key.id,
            "kind": key.kind.value,
            "publishable_key": key.publishable_key,
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


async def api_key_by_hash(conn: Connection, hashed: bytes) -> ApiKey | None:
    """Return the API key with a secret's hash."""
    row = (await conn.execute(text("SELECT * FROM api_keys WHERE secret_hash = :hash"), {"hash": hashed})).one_or_none()
    return _api_key(row) if row is not None else None


async def api_key(conn: Connection, merchant_id: str, key_id: str) -> ApiKey | None:
    """Return a merchant's API key, locked."""
    row = (
        await conn.execute(
            text("SELECT * FROM api_keys WHERE merchant_id = :merchant_id AND id = :id FOR UPDATE"),
            {"merchant_id": merchant_id, "id": key_id},
        )
    ).one_or_none()
    return _api_key(row) if row is not None else None


async def api_keys(conn: Connection, merchant_id: str, *, before: str, limit: int) -> list[ApiKey]:
    """Return a merchant's API keys, newest first."""
    rows = await conn.execute(
        text("SELECT * FROM api_keys WHERE merchant_id = :merchant_id AND id < :before ORDER BY id DESC LIMIT :limit"),
        {"merchant_id": merchant_id, "before": before, "limit": limit},
    )
    return [_api_key(row) for row in rows]


def limit_api_key(conn: Connection, key: ApiKey, *, expected: int) -> None:
    """Write when a key stops working; its row is locked by the caller."""
    conn.write(
        text(
            """
            UPDATE api_keys SET expire_time = :expire_time, version = :version, update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
            """
        ),
        {
            "expire_time": key.expire_time,
            "version": key.version,
            "now": key.update_time,
            "merchant_id": key.merchant_id,
            "id": key.id,
            "expected": expected,
        },
    )


def revoke_api_key(conn: Connection, key: ApiKey, now: datetime) -> None:
    """Write that a key is revoked; its row is locked by the caller."""
    conn.write(
        text(
            """
            UPDATE api_keys SET state = 'REVOKED', version = version + 1, update_time = :now
            WHERE merchant_id = :merchant_id AND id = :id AND version = :expected
            """
        ),
        {"now": now, "merchant_id": key.merchant_id, "id": key.id, "expected": key.version},
    )


async def touch_api_keys(conn: Connection, used: dict[str, tuple[str, datetime]]) -> None:
    """Note when keys were last used: {key id: (merchant id, time)}."""
    await conn.execute_each(
        text("UPDATE api_keys SET last_used_time = :time WHERE merchant_id = :merchant_id AND id = :id"),
        [{"id": key, "merchant_id": merchant_id, "time": time} for key, (merchant_id, time) in sorted(used.items())],
    )


def _api_key(row: Row) -> ApiKey:
    return ApiKey(
        id=row.id,
        merchant_id=row.merchant_id,
        kind=ApiKeyKind(row.kind),
        publishable_key=row.publishable_key or "",
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
