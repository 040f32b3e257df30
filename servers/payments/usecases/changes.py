"""What a merchant changes of a payment besides its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from servers.kernel.errors import FieldInvalid, ResourceNotFound, check_etag
from servers.payments import store
from servers.payments.domain import (
    AUTHORIZED,
    PAYMENT,
    CaptureMethod,
    FieldFixed,
    Payment,
    PaymentState,
)
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.payments import check_deadline
from servers.runtime.idempotency import IdempotentRequest

CHANGEABLE: Final = ("description", "metadata", "statement_descriptor_suffix", "capture_before")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePayment:
    """A merchant changes the fields that are named, of the version that it has seen, if it says which."""

    payment_id: str
    merchant_id: str
    fields: frozenset[str]
    expected: int | None
    description: str
    metadata: Mapping[str, str]
    statement_descriptor_suffix: str
    capture_deadline: datetime | None


async def update_payment(deps: Deps, request: IdempotentRequest, command: UpdatePayment) -> Payment:
    """Change a payment. Raises ResourceNotFound, EtagMismatch, FieldInvalid, and FieldFixed for what cannot change any
    more. Where everything is as asked for already, nothing changes."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            payment = await store.payment(uow.conn, command.payment_id, owner_id=command.merchant_id, lock=True)
            if payment is None:
                raise ResourceNotFound(command.payment_id)
            check_etag(payment.id, expected=command.expected, version=payment.version)
            changes = _changes(deps, payment, command)
            if changes:
                payment = store.change_details(uow.conn, payment, deps.clock.now(), **changes)
                uow.outbox.append(deps.events.payment("payment.updated", payment))
        uow.idempotency.complete(request, payment)
    return payment


def _changes(deps: Deps, payment: Payment, command: UpdatePayment) -> dict[str, Any]:
    """Return what is different from what is there, checked."""
    changes: dict[str, Any] = {}
    if "description" in command.fields and command.description != payment.description:
        changes["description"] = command.description
    if "metadata" in command.fields and dict(command.metadata) != dict(payment.metadata):
        changes["metadata"] = command.metadata
    suffix = command.statement_descriptor_suffix
    if "statement_descriptor_suffix" in command.fields and suffix != payment.statement_descriptor_suffix:
        # Stripe has it from the first confirm on, under a key that takes no other answer.
        if payment.latest_attempt is not None or payment.state in PAYMENT.terminal:
            raise FieldFixed(
                payment.id, payment.state.name, "statement_descriptor_suffix", "cannot change after the first confirm"
            )
        changes["statement_descriptor_suffix"] = suffix
    if "capture_before" in command.fields and command.capture_deadline != payment.capture_deadline:
        changes |= _deadline(deps, payment, command.capture_deadline)
    return changes


def _deadline(deps: Deps, payment: Payment, deadline: datetime | None) -> dict[str, Any]:
    if payment.capture_method is not CaptureMethod.MANUAL:
        raise FieldInvalid.of("capture_before", "is for payments with capture_method MANUAL")
    if payment.state in PAYMENT.terminal or payment.state is PaymentState.CONFLICTED:
        raise FieldFixed(
            payment.id,
            payment.state.name,
            "capture_before",
            "cannot change any more: there is nothing left to capture",
        )
    check_deadline(deps, deadline)
    changed = replace(payment, capture_deadline=deadline)
    due = changed.capture_due_time if payment.state in AUTHORIZED else payment.due_time
    return {"capture_deadline": deadline, "due_time": due}
