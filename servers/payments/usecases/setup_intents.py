"""Setup intents: a card saved with its issuer's consent. Each confirm is a SetupIntent of its own at Stripe, under a key of its
own, so that a lost answer is found again by it."""

from __future__ import annotations

from typing import Any, Final

from servers.kernel.errors import ProviderUnavailable, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.payments import store
from servers.payments.domain import (
    OPEN_SETUPS,
    SETUP,
    ActionRequired,
    CardDeclined,
    CardSaved,
    Manner,
    NextAction,
    NotConfirmed,
    OperationInProgress,
    SetupCanceled,
    SetupIntent,
    SetupResult,
    SetupState,
    SetupStateInvalid,
    StillProcessing,
    Usage,
)
from servers.payments.usecases.attempts import ensure_customer
from servers.payments.usecases.confirm import DECLINES_OF_PAYER, Payer, check_return_url
from servers.payments.usecases.deps import Deps
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import RESEND_WITHIN, Answered, NotSent, Outcome, Unknown, digest
from servers.runtime.sending import send, send_again

SET_UP: Final = "stripe.set_up"
Found = tuple[str, SetupResult]
declare("payments.setup.after_intent", "payments.setup.after_send")


async def create_setup(
    deps: Deps, request: IdempotentRequest, *, owner_id: str, merchant_id: str, usage: Usage
) -> SetupIntent:
    """Begin to save a card of a user, for a merchant where one is given."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        arrow, now = SETUP.arrow(None, "create"), deps.clock.now()
        setup = SetupIntent(
            id=new_id("seti", clock=deps.clock, bucket=bucket_of(owner_id)),
            owner_id=owner_id,
            merchant_id=merchant_id,
            usage=usage,
            state=arrow.target,
            uncertain=False,
            confirms=0,
            stripe_id="",
            stripe_payment_method_id="",
            manner=Manner(),
            next_action=NextAction(),
            last_decline=None,
            payment_method_id="",
            mandate_id="",
            version=1,
            create_time=now,
            update_time=now,
        )
        store.insert_setup(uow.conn, setup)
        uow.outbox.append(deps.events.setup(arrow.event, setup))
        uow.idempotency.complete(request, setup)
    return setup


def visible_setup(setup: SetupIntent | None, payer: Payer) -> bool:
    """Tell whether a setup intent exists for somebody: its user, its merchant, or a shopper with its secret."""
    if setup is None:
        return False
    if payer.customer_id:
        return setup.owner_id == payer.customer_id
    return setup.merchant_id == payer.merchant_id and (payer.has_secret or not payer.shopper)


async def confirm_setup(
    deps: Deps, request: IdempotentRequest, *, setup_id: str, payer: Payer, stripe_method_id: str, manner: Manner
) -> SetupIntent:
    """Confirm. Raises ResourceNotFound, SetupStateInvalid, OperationInProgress, FieldInvalid, ProviderUnavailable, RateLimited."""
    await deps.throttle.look(DECLINES_OF_PAYER, payer.limit_key)
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        resumed = await store.setup(uow.conn, setup_id) if claim.resource_id is not None else None
        if resumed is None or resumed.confirm_key != claim.resource_id or not _goes_on(resumed):
            async with uow.refusals(request):
                setup = await _begin(deps, uow, setup_id, payer, stripe_method_id, manner)
            await uow.idempotency.advance(request, "confirming", setup.confirm_key)
    crash_point("payments.setup.after_intent")
    setup = await drive_setup(deps, setup_id, request)
    if setup.state is SetupState.REQUIRES_PAYMENT_METHOD and setup.last_decline is not None:
        await deps.throttle.note(DECLINES_OF_PAYER, payer.limit_key)
    return setup


def _goes_on(setup: SetupIntent) -> bool:
    """Tell whether a same-key call goes on with its confirm; where that one came to nothing, it makes another."""
    return setup.state in OPEN_SETUPS or setup.state is SetupState.SUCCEEDED


async def _begin(
    deps: Deps, uow: UnitOfWork, setup_id: str, payer: Payer, stripe_method_id: str, manner: Manner
) -> SetupIntent:
    setup = await store.setup(uow.conn, setup_id, lock=True)
    if setup is None or not visible_setup(setup, payer):
        raise ResourceNotFound(setup_id)
    if setup.state is SetupState.PROCESSING:
        raise OperationInProgress(setup_id)
    if not SETUP.allows(setup.state, "send"):
        raise SetupStateInvalid(
            f"A setup intent in {setup.state.name} cannot be confirmed.", setup_id, setup.state.name
        )
    await check_return_url(deps, uow, setup.merchant_id, manner.return_url)
    setup = _walk(
        deps,
        uow,
        setup,
        "send",
        confirms=setup.confirms + 1,
        stripe_id="",
        stripe_payment_method_id=stripe_method_id,
        manner=manner,
        last_decline=None,
    )
    await uow.outbound.record(
        verb=SET_UP, target=setup.id, key=setup.confirm_key, request_digest=digest(setup.id, stripe_method_id)
    )
    return setup


def _walk(deps: Deps, uow: UnitOfWork, setup: SetupIntent, *triggers: str, **changes: Any) -> SetupIntent:
    """Walk arrows in order: a version and an outbox row each. `changes` come with the last one."""
    for trigger in triggers:
        event = SETUP.arrow(setup.state, trigger, setup.id).event
        with_it = changes if trigger == triggers[-1] else {}
        setup = store.advance_setup(uow.conn, setup, trigger, now=deps.clock.now(), **with_it)
        uow.outbox.append(deps.events.setup(event, setup))
    return setup


async def drive_setup(deps: Deps, setup_id: str, request: IdempotentRequest | None = None) -> SetupIntent:
    """Bring a setup intent to what is known of it: send its confirm, or read it and send again while that is safe. Raises
    ProviderUnavailable where it provably was not sent."""
    setup = await _load(deps, setup_id)
    young = deps.clock.now() - setup.update_time < RESEND_WITHIN
    if setup.state is SetupState.PROCESSING and not setup.stripe_id and not setup.uncertain and young:
        # Where it went out before a crash, Stripe recognises its key.
        outcome = await send(deps.db, setup.id, lambda: _send(deps, setup))
    elif setup.state in OPEN_SETUPS:
        outcome = await _read_or_send(deps, setup)
    else:
        return await _record(deps, setup, None, request)
    crash_point("payments.setup.after_send")
    recorded = await _record(deps, setup, outcome, request)
    if _unsent(recorded):
        raise ProviderUnavailable
    return recorded


async def learn_setup(deps: Deps, setup_id: str) -> SetupIntent:
    """Ask Stripe about a setup intent and write down what it says; never sends."""
    setup = await _load(deps, setup_id)
    if setup.state not in OPEN_SETUPS:
        return setup
    found = await _read(deps, setup)
    return await _record(deps, setup, found, None) if isinstance(found, Answered) else setup


async def refresh_setup(deps: Deps, setup: SetupIntent) -> SetupIntent:
    """Ask Stripe about a setup intent whose outcome has been open for more than a minute, for somebody who reads it."""
    if setup.state not in OPEN_SETUPS:
        return setup
    async with deps.db.uow() as uow:
        if not await uow.outbound.may_read(setup.id):
            return setup
    return await learn_setup(deps, setup.id)


async def _load(deps: Deps, setup_id: str) -> SetupIntent:
    async with deps.db.read() as conn:
        setup = await store.setup(conn, setup_id)
    invariant(setup is not None, "a setup intent vanished", setup_id=setup_id)
    assert setup is not None
    return setup


async def _send(deps: Deps, setup: SetupIntent) -> Outcome[Found]:
    async def confirm() -> Found:
        return await deps.gateway.set_up(setup, await ensure_customer(deps, setup.owner_id, setup.confirm_key))

    return await deps.outbound.execute(SET_UP, confirm)


async def _read(deps: Deps, setup: SetupIntent) -> Outcome[Found]:
    async def ask() -> Found:
        return await deps.gateway.read_setup(setup, await ensure_customer(deps, setup.owner_id, setup.confirm_key))

    return await deps.outbound.execute("stripe.read_setup", ask)


async def _read_or_send(deps: Deps, setup: SetupIntent) -> Outcome[Found]:
    found = await _read(deps, setup)
    if not isinstance(found, Answered):
        return Unknown(found.reason)
    if not isinstance(found.value[1], NotConfirmed):
        return found
    return await send_again(deps.db, setup.id, lambda: _send(deps, setup))


async def _record(
    deps: Deps, asked: SetupIntent, outcome: Outcome[Found] | None, request: IdempotentRequest | None
) -> SetupIntent:
    """Write down what is known now; news of an earlier confirm is no news."""
    async with deps.db.uow() as uow:
        setup = await store.setup(uow.conn, asked.id, lock=True)
        assert setup is not None
        if outcome is not None and setup.confirm_key == asked.confirm_key:
            setup = await _learn(deps, uow, setup, outcome)
        if request is not None and not _unsent(setup):
            uow.idempotency.complete(request, setup)
    return setup


async def _learn(deps: Deps, uow: UnitOfWork, setup: SetupIntent, outcome: Outcome[Found]) -> SetupIntent:
    outcome = await uow.outbound.known(setup.id, outcome)
    match outcome:
        case Answered():
            setup = await _apply(deps, uow, setup, *outcome.value)
        case NotSent() if setup.state is SetupState.PROCESSING:
            setup = _walk(deps, uow, setup, "not_sent")
        case Unknown() if setup.state is SetupState.PROCESSING:
            setup = store.note_setup(uow.conn, setup, uncertain=True)
        case _:
            pass
    uow.outbound.settle(setup.id, outcome, pending=setup.state in OPEN_SETUPS)
    return setup


def _unsent(setup: SetupIntent) -> bool:
    """Tell whether the latest confirm came to nothing although nobody declined it: it never arrived."""
    return setup.state is SetupState.REQUIRES_PAYMENT_METHOD and setup.last_decline is None


async def _apply(deps: Deps, uow: UnitOfWork, setup: SetupIntent, stripe_id: str, result: SetupResult) -> SetupIntent:
    if setup.state not in OPEN_SETUPS:
        return setup
    known: dict[str, Any] = {"stripe_id": stripe_id or setup.stripe_id, "uncertain": False}
    asked = setup.state is SetupState.REQUIRES_ACTION
    match result:
        case CardSaved():
            return await _save(deps, uow, setup, result, known)
        case CardDeclined():
            return _walk(deps, uow, setup, "decline", last_decline=result.decline, **known)
        case SetupCanceled():
            return _walk(deps, uow, setup, "cancel", **known)
        case ActionRequired() if not asked:
            action = deps.outcomes.sealed(setup.id, result)
            return _walk(deps, uow, setup, "require_action", next_action=action, **known)
        case StillProcessing() if asked:
            return _walk(deps, uow, setup, "return", **known)
        case _:
            return setup if asked else store.note_setup(uow.conn, setup, **known)


async def _save(
    deps: Deps, uow: UnitOfWork, setup: SetupIntent, saved: CardSaved, known: dict[str, Any]
) -> SetupIntent:
    method = await deps.saving.adopt(uow, setup.owner_id, saved.used)
    mandate_id = ""
    if setup.merchant_id:
        mandate = await deps.saving.give(
            uow, owner_id=setup.owner_id, merchant_id=setup.merchant_id, method_id=method.id, usage=setup.usage
        )
        mandate_id = mandate.id
    steps = ("return", "succeed") if setup.state is SetupState.REQUIRES_ACTION else ("succeed",)
    return _walk(
        deps,
        uow,
        setup,
        *steps,
        payment_method_id=method.id,
        mandate_id=mandate_id,
        **known,
    )
