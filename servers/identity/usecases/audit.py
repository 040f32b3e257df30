"""The audit log: written in the transaction of what it tells."""

from __future__ import annotations

from servers.identity import store
from servers.identity.domain import AuditLogEntry
from servers.identity.usecases.deps import Deps
from servers.kernel.ids import bucket_of, new_id
from servers.runtime.call import current_call
from servers.runtime.db import UnitOfWork


def note(deps: Deps, uow: UnitOfWork, merchant_id: str, action: str, resource_id: str, **details: str) -> None:
    """Write down that the caller did something for a merchant."""
    call = current_call()
    entry = AuditLogEntry(
        id=new_id("aud", clock=deps.clock, bucket=bucket_of(merchant_id)),
        merchant_id=merchant_id,
        actor_id=call.principal.subject,
        actor_role=call.principal.role,
        action=action,
        resource_id=resource_id,
        details=details,
        request_id=call.request_id,
        create_time=deps.clock.now(),
    )
    store.insert_audit_entry(uow.conn, entry)
