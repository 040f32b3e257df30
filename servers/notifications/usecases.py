"""Queueing a mail with the event that asks for it, and sending it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from servers.kernel.clock import Clock
from servers.kernel.ids import new_id
from servers.notifications import store
from servers.notifications.domain import EMAIL, Email, EmailKind
from servers.notifications.events import event
from servers.notifications.gateway_smtp import Gateway, MailNotSent, MailRefused
from servers.notifications.letters import Writer, write
from servers.notifications.peers import Directory, Recipient
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import Database, UnitOfWork

SEND: Final = "notifications.send_email"
TRIES: Final = 10
"""Over a quarter of an hour, each try twice as late as the one before."""

declare("notifications.send.before", "notifications.send.after")
_log = structlog.get_logger("emails")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """What the use cases work with."""

    db: Database
    clock: Clock
    gateway: Gateway
    directory: Directory
    public_url: str


async def queue_email(
    deps: Deps,
    uow: UnitOfWork,
    *,
    event_id: str,
    kind: EmailKind,
    user_id: str,
    resource_id: str,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Queue the one mail of an event to a recipient, in the transaction that consumes the event."""
    now = deps.clock.now()
    email = Email(
        id=new_id("eml", clock=deps.clock),
        kind=kind,
        user_id=user_id,
        resource_id=resource_id,
        facts=facts or {},
        state=EMAIL.arrow(None, "queue").target,
        version=1,
        create_time=now,
        update_time=now,
    )
    if await store.insert_email(uow.conn, email, event_id):
        await uow.jobs.defer(SEND, email_id=email.id)


async def send_email(deps: Deps, *, email_id: str) -> None:
    """Send a queued mail; a job's work. Raises MailNotSent and PeerUnavailable until the last try.

    Where the process dies between the mail server's yes and our note of it, the mail is sent again under the same Message-ID: a
    receipt twice is better than none.
    """
    async with deps.db.uow() as uow:
        email = await store.email(uow.conn, email_id, lock=True)
        if email.state in EMAIL.terminal:
            return
        tries = await store.count_try(uow.conn, email_id)
    crash_point("notifications.send.before")
    try:
        recipient, merchant = await _addressed(deps, email)
        token = await deps.directory.token(email.kind, email.user_id)
        writer = Writer(
            facts=email.facts,
            name=recipient.name,
            merchant=merchant,
            token=token,
            public_url=deps.public_url,
        )
        letter = write(email.kind, writer)
        await deps.gateway.send(letter, email_id=email.id, address=recipient.address, name=recipient.name)
    except MailRefused as refusal:
        await _settle(deps, email_id, "fail", str(refusal))
        return
    except MailNotSent as failure:
        if tries < TRIES:
            raise
        await _settle(deps, email_id, "fail", str(failure))
        return
    crash_point("notifications.send.after")
    await _settle(deps, email_id, "send", "")


async def _addressed(deps: Deps, email: Email) -> tuple[Recipient, str]:
    if email.kind is EmailKind.INVITATION:
        return await deps.directory.invited(email.resource_id)
    recipient = await deps.directory.user(email.user_id)
    merchant_id = email.facts.get("merchant_id", "")
    return recipient, await deps.directory.merchant_name(merchant_id) if merchant_id else ""


async def _settle(deps: Deps, email_id: str, trigger: str, error: str) -> None:
    async with deps.db.uow() as uow:
        email = await store.email(uow.conn, email_id, lock=True)
        if not EMAIL.allows(email.state, trigger):
            return
        arrow = EMAIL.arrow(email.state, trigger, email.id)
        settled = replace(email, state=arrow.target, version=email.version + 1, update_time=deps.clock.now())
        store.save_email(uow.conn, settled, expected=email.version, error=error)
        uow.outbox.append(event(arrow.event, settled))
    if error:
        _log.error("email.failed", email_id=email_id, kind=email.kind.value, error=error)
