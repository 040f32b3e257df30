"""The SQL of the audit log."""

from __future__ import annotations

import json

from servers.identity.domain import AuditLogEntry
from servers.runtime.connection import Connection
from servers.runtime.sql import text


def insert_audit_entry(conn: Connection, entry: AuditLogEntry) -> None:
    """Append what a member did, in the transaction that does it."""
    conn.write(
        text(
            """
            INSERT INTO audit_log (merchant_id, id, actor_id, actor_role, action, resource_id, details, request_id, create_time)
            VALUES (:merchant_id, :id, :actor_id, :actor_role, :action, :resource_id, CAST(:details AS jsonb), :request_id,
                    :create_time)
            """
        ),
        {
            "merchant_id": entry.merchant_id,
            "id": entry.id,
            "actor_id": entry.actor_id,
            "actor_role": entry.actor_role,
            "action": entry.action,
            "resource_id": entry.resource_id,
            "details": json.dumps(dict(entry.details)),
            "request_id": entry.request_id,
            "create_time": entry.create_time,
        },
    )


async def audit_log(conn: Connection, merchant_id: str, *, before: str, limit: int) -> list[AuditLogEntry]:
    """Return a merchant's entries, newest first."""
    rows = await conn.execute(
        text("SELECT * FROM audit_log WHERE merchant_id = :merchant_id AND id < :before ORDER BY id DESC LIMIT :limit"),
        {"merchant_id": merchant_id, "before": before, "limit": limit},
    )
    return [
        AuditLogEntry(
            id=row.id,
            merchant_id=row.merchant_id,
            actor_id=row.actor_id,
            actor_role=row.actor_role,
            action=row.action,
            resource_id=row.resource_id,
            details=row.details,
            request_id=row.request_id,
            create_time=row.create_time,
        )
        for row in rows
    ]
