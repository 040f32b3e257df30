"""Which events ask for which mails."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import partial
from typing import Final

from paymesh.identity.v1 import identity_events_pb2
from paymesh.payments.v1 import payments_events_pb2, payments_pb2
from paymesh.wallets.v1 import wallets_events_pb2

from servers.notifications import store
from servers.notifications.domain import EmailKind
from servers.notifications.usecases import Deps, queue_email
from servers.runtime.consumer import Handler
from servers.runtime.db import UnitOfWork
from servers.runtime.eventlog import Delivered
from servers.runtime.render import instant

GROUP: Final = "notifications"
TOPICS: Final = ("paymesh.identity.v1", "paymesh.payments.v1", "paymesh.wallets.v1")
_OF_USER: Final = {
    "user.registered": EmailKind.VERIFY_EMAIL,
    "user.email_verification_requested": EmailKind.VERIFY_EMAIL,
    "user.password_reset_requested": EmailKind.RESET_PASSWORD,
    "user.password_changed": EmailKind.PASSWORD_CHANGED,
}
WRITE_WITHIN: Final = timedelta(days=1)
_TIME: Final = "%-d %B %Y, %H:%M UTC"


def handlers(deps: Deps) -> dict[str, Handler]:
    """Return what is done with each type."""
    table: dict[str, Handler] = {kind: partial(_user, deps, mail) for kind, mail in _OF_USER.items()}
    table["session.created"] = partial(_session, deps)
    table["invitation.created"] = partial(_invitation, deps)
    table["payment.succeeded"] = partial(_receipt, deps)
    table["top_up.succeeded"] = partial(_top_up, deps)
    table["refund.succeeded"] = partial(_refund, deps, EmailKind.REFUND)
    table["refund.failed"] = partial(_refund, deps, EmailKind.REFUND_FAILED)
    return {kind: partial(_timely, deps, handler) for kind, handler in table.items()}


async def _timely(deps: Deps, handler: Handler, uow: UnitOfWork, delivered: Delivered) -> None:
    """Write about what has just happened only: whoever starts to read the log from its beginning must not write to everybody
    about everything once more."""
    if deps.clock.now() - delivered.record.occur_time <= WRITE_WITHIN:
        await handler(uow, delivered)


async def _user(deps: Deps, kind: EmailKind, uow: UnitOfWork, delivered: Delivered) -> None:
    event = identity_events_pb2.IdentityEvent.FromString(delivered.record.data)
    await queue_email(deps, uow, event_id=event.event_id, kind=kind, user_id=event.user.id, resource_id=event.user.id)


async def _session(deps: Deps, uow: UnitOfWork, delivered: Delivered) -> None:
    event = identity_events_pb2.IdentityEvent.FromString(delivered.record.data)
    user_id, agent = event.session.user_id, event.session.user_agent
    device = hashlib.sha256(agent.encode()).hexdigest()
    if await store.new_device(uow.conn, user_id, device, deps.clock.now()):
        facts = {"time": instant(event.occur_time).strftime(_TIME), "user_agent": agent}
        await queue_email(
            deps,
            uow,
            event_id=event.event_id,
            kind=EmailKind.NEW_SIGN_IN,
            user_id=user_id,
            resource_id=event.session.id,
            facts=facts,
        )


async def _invitation(deps: Deps, uow: UnitOfWork, delivered: Delivered) -> None:
    event = identity_events_pb2.IdentityEvent.FromString(delivered.record.data)
    await queue_email(
        deps,
        uow,
        event_id=event.event_id,
        kind=EmailKind.INVITATION,
        user_id="",
        resource_id=event.invitation.id,
        facts={"role": event.invitation.role, "invitation_id": event.invitation.id},
    )


async def _receipt(deps: Deps, uow: UnitOfWork, delivered: Delivered) -> None:
    event = payments_events_pb2.PaymentEvent.FromString(delivered.record.data)
    payment = event.payment
    # A top-up is told of by its own mail, once the money is in the wallet.
    if not event.customer_id or payment.purpose == payments_pb2.Payment.TOP_UP:
        return
    facts = {
        "payment_id": payment.id,
        "merchant_id": payment.merchant_id,
        "amount_minor": str(payment.amount_captured.amount_minor),
        "currency": payment.amount_captured.currency,
        "description": payment.description,
        "time": instant(event.occur_time).strftime(_TIME),
    }
    await queue_email(
        deps,
        uow,
        event_id=event.event_id,
        kind=EmailKind.RECEIPT,
        user_id=event.customer_id,
        resource_id=payment.id,
        facts=facts,
    )


async def _top_up(deps: Deps, uow: UnitOfWork, delivered: Delivered) -> None:
    event = wallets_events_pb2.WalletEvent.FromString(delivered.record.data)
    top_up = event.top_up
    facts = {
        "top_up_id": top_up.id,
        "amount_minor": str(top_up.amount.amount_minor),
        "currency": top_up.amount.currency,
        "time": instant(event.occur_time).strftime(_TIME),
    }
    await queue_email(
        deps,
        uow,
        event_id=event.event_id,
        kind=EmailKind.TOP_UP,
        user_id=event.customer_id,
        resource_id=top_up.id,
        facts=facts,
    )


async def _refund(deps: Deps, kind: EmailKind, uow: UnitOfWork, delivered: Delivered) -> None:
    event = payments_events_pb2.PaymentEvent.FromString(delivered.record.data)
    refund = event.refund
    # Without a merchant it is the end of a top-up that never was one.
    if not event.customer_id or not refund.merchant_id:
        return
    facts = {
        "refund_id": refund.id,
        "payment_id": refund.payment_id,
        "merchant_id": refund.merchant_id,
        "amount_minor": str(refund.amount.amount_minor),
        "currency": refund.amount.currency,
        "wallet_id": event.wallet_id,
    }
    await queue_email(
        deps,
        uow,
        event_id=event.event_id,
        kind=kind,
        user_id=event.customer_id,
        resource_id=refund.id,
        facts=facts,
    )
