"""Top-ups: payments of users to themselves, asked for by the wallets server. The payment's id follows from the top-up's, so
that every repeat finds the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from servers.kernel.errors import FieldInvalid
from servers.kernel.ids import bucket_of, derive_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    OPEN_ATTEMPTS,
    Attempt,
    CaptureMethod,
    Manner,
    Payment,
    PaymentState,
    Purpose,
)
from servers.payments.usecases.attempts import drive_attempt, learn_attempt
from servers.payments.usecases.confirm import begin_attempt, check_return_url, saved_card
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.payments import new_payment
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork

NOT_SENT_YET: Final = (PaymentState.REQUIRES_PAYMENT_METHOD, PaymentState.REQUIRES_CONFIRMATION)
declare("payments.top_up.after_intent")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeTopUp:
    """A user adds money to a wallet; with `stop` nothing is sent any more, and a rehearsal leaves nothing behind."""

    top_up_id: str
    customer_id: str
    amount: Money
    payment_method_id: str
    return_url: str
    stop: bool
    rehearsal: bool = False


async def charge_top_up(deps: Deps, command: ChargeTopUp) -> Payment:
    """Charge a card for a top-up, or say how it stands. Raises ResourceNotFound for a card that is not the user's,
    MethodStateInvalid, FieldInvalid, ProviderUnavailable."""
    async with deps.db.uow() as uow:
        if command.rehearsal:
            uow.rehearse()
        payment, attempt = await _intent(deps, uow, command)
    crash_point("payments.top_up.after_intent")
    if attempt is None or command.rehearsal:
        return payment
    if command.stop:
        return await learn_attempt(deps, attempt.id)
    return await drive_attempt(deps, attempt.id)


async def _intent(deps: Deps, uow: UnitOfWork, command: ChargeTopUp) -> tuple[Payment, Attempt | None]:
    """Return the top-up's payment with the attempt to drive, if there is one. Two calls at once wait for each other at the row, or
    at its making."""
    identifier = derive_id("pay", command.top_up_id, bucket=bucket_of(command.customer_id))
    payment = await store.payment(uow.conn, identifier, owner_id=command.customer_id, lock=True)
    if payment is None:
        await _create(deps, uow, identifier, command)
        payment = await store.payment(uow.conn, identifier, owner_id=command.customer_id, lock=True)
    invariant(payment is not None, "a top-up's payment vanished", payment_id=identifier)
    assert payment is not None
    if payment.amount != command.amount:
        raise FieldInvalid.of("amount", "differs from the first call for this top-up")
    attempt = payment.latest_attempt
    if payment.state not in NOT_SENT_YET or (attempt is not None and attempt.state in OPEN_ATTEMPTS):
        return payment, attempt
    if command.stop:
        return await deps.outcomes.canceled(uow, payment, "cancel", reason="ABANDONED"), None
    source = await saved_card(uow, command.customer_id, command.payment_method_id)
    await check_return_url(deps, uow, "", command.return_url)
    manner = Manner(return_url=command.return_url)
    return payment, await begin_attempt(deps, uow, payment, source, manner)


async def _create(deps: Deps, uow: UnitOfWork, identifier: str, command: ChargeTopUp) -> None:
    payment, event = new_payment(
        deps,
        identifier=identifier,
        owner_id=command.customer_id,
        customer_id=command.customer_id,
        amount=command.amount,
        capture_method=CaptureMethod.AUTOMATIC,
        purpose=Purpose.TOP_UP,
        top_up_id=command.top_up_id,
    )
    if await store.insert_payment(uow.conn, payment):
        uow.outbox.append(deps.events.payment(event, payment))
