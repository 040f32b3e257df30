"""Who of the staff decided what, and why: written down in the transaction that carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from servers.kernel.ids import bucket_of, new_id
from servers.payments import store
from servers.payments.domain import StaffAction
from servers.payments.usecases.deps import Deps
from servers.runtime.db import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Who decides, and why."""

    actor_id: str
    actor_role: str
    reason: str
    request_id: str


def note_decision(
    deps: Deps, uow: UnitOfWork, owner_id: str, action: str, resource_id: str, decision: str, decider: Decider
) -> None:
    """Append a decision about something of an owner's."""
    entry = StaffAction(
        owner_id=owner_id,
        id=new_id("act", clock=deps.clock, bucket=bucket_of(resource_id)),
        actor_id=decider.actor_id,
        actor_role=decider.actor_role,
        action=action,
        resource_id=resource_id,
        decision=decision,
        reason=decider.reason,
        request_id=decider.request_id,
        create_time=deps.clock.now(),
    )
    store.insert_staff_action(uow.conn, entry)
