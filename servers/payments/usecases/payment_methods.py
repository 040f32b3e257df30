"""Payment methods: attached at Stripe, under ids of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from servers.kernel.errors import ProviderUnavailable, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.payments import store
from servers.payments.domain import (
    METHOD,
    MethodState,
    OperationInProgress,
    PaymentMethod,
    PaymentMethodRejected,
)
from servers.payments.gateway_stripe import Attached
from servers.payments.usecases.attempts import ensure_customer
from servers.payments.usecases.deps import Deps
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Answered, NotSent, Unknown, digest
from servers.runtime.sending import send

ATTACH: Final = "stripe.attach"
DETACH: Final = "stripe.detach"


async def create_payment_method(deps: Deps, request: IdempotentRequest, owner_id: str, stripe_id: str) -> PaymentMethod:
    """Attach a Stripe payment method to the user. Raises PaymentMethodRejected, ProviderUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        if claim.resource_id is not None:
            method = await store.method_by_id(uow.conn, claim.resource_id)
            await _promise(uow, method)
        else:
            method = _insert_method(deps, uow, owner_id, stripe_id)
            await _promise(uow, method)
            await uow.idempotency.advance(request, "attaching", method.id)
    return await attach_method(deps, method, request)


def _insert_method(deps: Deps, uow: UnitOfWork, owner_id: str, stripe_id: str) -> PaymentMethod:
    now = deps.clock.now()
    method = PaymentMethod(
        id=new_id("pm", clock=deps.clock, bucket=bucket_of(owner_id)),
        owner_id=owner_id,
        stripe_id=stripe_id,
        state=METHOD.arrow(None, "create").target,
        card=None,
        is_default=False,
        version=1,
        create_time=now,
        update_time=now,
    )
    store.insert_method(uow.conn, method)
    return method


async def _promise(uow: UnitOfWork, method: PaymentMethod) -> None:
    """Write down that the card is about to be attached; where Stripe was not reached before, it is tried again."""
    await uow.outbound.record(
        verb=ATTACH, target=method.id, key=method.id, request_digest=digest(method.owner_id, method.stripe_id)
    )


async def attach_method(deps: Deps, method: PaymentMethod, request: IdempotentRequest | None = None) -> PaymentMethod:
    """Bring a payment method from ATTACHING to its end. Safe to repeat: both calls to Stripe carry ids of ours."""
    if method.state is MethodState.ATTACHING:
        outcome = await send(deps.db, method.id, lambda: deps.outbound.execute(ATTACH, lambda: _attach(deps, method)))
        refusal: PaymentMethodRejected | None = None
        async with deps.db.uow() as uow:
            current = await store.method(uow.conn, method.owner_id, method.id, lock=True)
            invariant(current is not None, "a payment method vanished", method_id=method.id)
            assert current is not None
            outcome = await uow.outbound.known(method.id, outcome)
            uow.outbound.settle(method.id, outcome)
            match outcome:
                case Answered(value=Attached() as attached) if current.state is MethodState.ATTACHING:
                    current = _save_method(deps, uow, current, "attach", attached)
                case Answered(value=PaymentMethodRejected() as refusal) if current.state is MethodState.ATTACHING:
                    current = _save_method(deps, uow, current, "reject", None)
                case _:
                    pass
            method = current
            if request is not None and refusal is not None:
                uow.idempotency.refuse(request, refusal)
            elif request is not None and not isinstance(outcome, NotSent):
                uow.idempotency.complete(request, method)
        if refusal is not None:
            raise refusal
        if isinstance(outcome, NotSent):
            raise ProviderUnavailable
        return method
    if request is not None:
        async with deps.db.uow() as uow:
            uow.idempotency.complete(request, method)
    return method


async def _attach(deps: Deps, method: PaymentMethod) -> Attached | PaymentMethodRejected:
    customer_id = await ensure_customer(deps, method.owner_id, method.id)
    try:
        return await deps.gateway.attach(method.stripe_id, customer_id, key=method.id)
    except PaymentMethodRejected as refusal:
        return refusal


def _save_method(
    deps: Deps, uow: UnitOfWork, method: PaymentMethod, trigger: str, attached: Attached | None
) -> PaymentMethod:
    arrow = METHOD.arrow(method.state, trigger, method.id)
    moved = replace(
        method,
        state=arrow.target,
        version=method.version + 1,
        update_time=deps.clock.now(),
        stripe_id=attached.stripe_id if attached else method.stripe_id,
        card=attached.card if attached else None,
    )
    store.update_method(uow.conn, moved, expected_version=method.version)
    if arrow.event:
        uow.outbox.append(deps.events.method(arrow.event, moved))
    return moved


def _move(deps: Deps, uow: UnitOfWork, method: PaymentMethod, trigger: str, *, is_default: bool) -> PaymentMethod:
    arrow = METHOD.arrow(method.state, trigger, method.id)
    moved = replace(
        method,
        state=arrow.target,
        is_default=is_default,
        version=method.version + 1,
        update_time=deps.clock.now(),
    )
    store.update_method(uow.conn, moved, expected_version=method.version)
    uow.outbox.append(deps.events.method(arrow.event, moved))
    return moved


async def set_default_method(deps: Deps, request: IdempotentRequest, owner_id: str, method_id: str) -> PaymentMethod:
    """Make a card the default. Raises ResourceNotFound, MethodStateInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            # The former default gives way first: the index allows one, and two callers wait for each other here.
            former = await store.default_method(uow.conn, owner_id)
            method = await store.method(uow.conn, owner_id, method_id, lock=True)
            if method is None:
                raise ResourceNotFound(method_id)
            if not method.is_default:
                if former is not None:
                    _move(deps, uow, former, "set_default", is_default=False)
                method = _move(deps, uow, method, "set_default", is_default=True)
            uow.idempotency.complete(request, method)
    return method


async def detach_payment_method(deps: Deps, request: IdempotentRequest, owner_id: str, method_id: str) -> PaymentMethod:
    """Remove a card: at once for us, and at Stripe as soon as it answers. Raises ResourceNotFound, MethodStateInvalid,
    OperationInProgress while an attempt with it is under way."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        async with uow.refusals(request):
            method = await store.method(uow.conn, owner_id, method_id, lock=True)
            if method is None:
                raise ResourceNotFound(method_id)
            if claim.resource_id is None:
                if await store.method_in_use(uow.conn, method):
                    raise OperationInProgress(method_id)
                for mandate in await store.active_mandates(uow.conn, owner_id=owner_id, method_id=method_id, lock=True):
                    deps.saving.revoke(uow, mandate)
                method = _move(deps, uow, method, "remove", is_default=False)
                await uow.outbound.record(
                    verb=DETACH, target=method.id, key=method.id, request_digest=digest(method.stripe_id)
                )
        await uow.idempotency.advance(request, "detaching", method.id)
    return await finish_detach(deps, method, request)


async def finish_detach(deps: Deps, method: PaymentMethod, request: IdempotentRequest | None = None) -> PaymentMethod:
    """Bring a payment method from DETACHING to its end; a repeat at Stripe changes nothing."""
    if method.state is MethodState.DETACHING:
        outcome = await deps.outbound.execute(DETACH, lambda: deps.gateway.detach(method.stripe_id))
        async with deps.db.uow() as uow:
            current = await store.method(uow.conn, method.owner_id, method.id, lock=True)
            assert current is not None
            if isinstance(outcome, Answered) and current.state is MethodState.DETACHING:
                current = _move(deps, uow, current, "detach", is_default=False)
            # A card that Stripe was not told of stays promised: the janitor tells it.
            kept = Unknown(outcome.reason) if isinstance(outcome, NotSent) else outcome
            uow.outbound.settle(method.id, kept)
            method = current
    if request is not None:
        async with deps.db.uow() as uow:
            uow.idempotency.complete(request, method)
    return method
