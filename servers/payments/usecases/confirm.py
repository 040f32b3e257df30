"""Confirming: who may, with what, and the attempt that it begins. What becomes of the attempt stands in `attempts.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.payments import store
from servers.payments.domain import (
    ATTEMPT,
    OPEN_ATTEMPTS,
    PAYMENT,
    Attempt,
    AttemptState,
    InsufficientFunds,
    Manner,
    MethodState,
    MethodStateInvalid,
    NextAction,
    OperationInProgress,
    Payment,
    PaymentMethod,
    PaymentState,
    PaymentStateInvalid,
    Purpose,
    Review,
    ReviewState,
    Source,
    Usage,
)
from servers.payments.peers import Wallet
from servers.payments.risk import CLEAR, Assessment, Question
from servers.payments.usecases.attempts import CONFIRM, begun_attempt, drive_attempt
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import look_first
from servers.payments.usecases.wallet_rail import WALLET_CONFIRM
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import digest
from servers.runtime.throttle import Limit

# Whoever tries stolen cards is declined again and again: twenty times at once, then once in three minutes.
DECLINES_OF_PAYER: Final = Limit(name="declines_of_payer", burst=20, every_seconds=180)
declare("payments.confirm.after_intent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Who confirms: a customer, a shopper with a publishable key, or a merchant under a mandate."""

    customer_id: str = ""
    merchant_id: str = ""
    shopper: bool = False
    has_secret: bool = False
    """Whether they came with the payment's client secret."""
    limit_key: str
    """Under which their declines are counted."""

    def may_confirm(self, payment: Payment) -> bool:
        """Tell whether the payment exists for them."""
        if payment.purpose is not Purpose.SALE:
            return False
        if self.customer_id:
            return payment.customer_id == self.customer_id or (not payment.customer_id and self.has_secret)
        return payment.owner_id == self.merchant_id and (self.has_secret or not self.shopper)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPayment:
    """Somebody wants to pay, with a source of theirs or with the card that the payment was created with."""

    payment_id: str
    payer: Payer
    source: Source
    manner: Manner


async def confirm_payment(deps: Deps, request: IdempotentRequest, command: ConfirmPayment) -> Payment:
    """Charge a card or a wallet. Raises ResourceNotFound, FieldInvalid, PaymentStateInvalid, MethodStateInvalid,
    OperationInProgress, InsufficientFunds, ProviderUnavailable, PeerUnavailable, and RateLimited after too many declines."""
    await deps.throttle.look(DECLINES_OF_PAYER, command.payer.limit_key)
    seen = await look_first(deps, request, command.payment_id, command.payer.may_confirm)
    wallet = await _wallet(deps, command)
    assessment = await _assess(deps, command, seen) if seen is not None else CLEAR
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        attempt = await begun_attempt(uow, claim)
        if attempt is None or attempt.state is AttemptState.NOT_SENT:
            async with uow.refusals(request):
                payment = await store.payment(uow.conn, command.payment_id, lock=True)
                if payment is None or not command.payer.may_confirm(payment):
                    raise ResourceNotFound(command.payment_id)
                source = await _source(uow, payment, command, wallet)
                await _check_manner(deps, uow, payment, command)
                attempt = await begin_attempt(deps, uow, payment, source, command.manner, assessment)
            await uow.idempotency.advance(
                request, "confirming", attempt.id, shows=partial(store.payment, uow.conn, attempt.payment_id)
            )
    crash_point("payments.confirm.after_intent")
    return await finish_confirm(deps, request, attempt, command.payer.limit_key)


async def _assess(deps: Deps, command: ConfirmPayment, payment: Payment) -> Assessment:
    """Ask what the fraud rules say; whether the payment may be confirmed at all is looked at under its lock."""
    return await deps.screening.assess(
        Question(
            payment_id=payment.id,
            merchant_id=payment.merchant_id,
            customer_id=payment.customer_id,
            amount=payment.amount,
            off_session=command.manner.off_session,
            from_wallet=bool(command.source.wallet_id),
        )
    )


async def finish_confirm(deps: Deps, request: IdempotentRequest, attempt: Attempt, limit_key: str) -> Payment:
    """Drive an attempt for the caller who began it, and count a decline against them. Raises InsufficientFunds besides what
    `drive_attempt` raises."""
    payment = await drive_attempt(deps, attempt.id, request, refuse=_short_of_money)
    latest = payment.latest_attempt
    if latest is not None and latest.id == attempt.id and latest.state is AttemptState.DECLINED:
        await deps.throttle.note(DECLINES_OF_PAYER, limit_key)
    return payment


def _short_of_money(payment: Payment, attempt: Attempt) -> InsufficientFunds | None:
    """A wallet without enough is a refusal: there is no issuer who declined."""
    if attempt.source.wallet_id and attempt.state is AttemptState.DECLINED:
        return InsufficientFunds(payment.id, payment.amount.currency)
    return None


async def _wallet(deps: Deps, command: ConfirmPayment) -> Wallet | None:
    if not command.source.wallet_id:
        return None
    wallet = await deps.ledger.wallet(command.source.wallet_id)
    if wallet is None or not command.payer.customer_id or wallet.customer_id != command.payer.customer_id:
        raise ResourceNotFound(command.source.wallet_id)
    return wallet


async def _source(uow: UnitOfWork, payment: Payment, command: ConfirmPayment, wallet: Wallet | None) -> Source:
    """Return what is charged, checked. Raises FieldInvalid, ResourceNotFound, MethodStateInvalid."""
    asked, payer = command.source, command.payer
    if wallet is not None:
        if payment.customer_id != payer.customer_id:
            raise FieldInvalid.of("wallet_id", "pays only for payments that were created for its owner")
        if wallet.currency != payment.amount.currency:
            raise FieldInvalid.of("wallet_id", f"must be a wallet in {payment.amount.currency}, the payment's currency")
        return asked
    if asked.stripe_payment_method_id:
        if not (payer.shopper or payer.customer_id):
            raise FieldInvalid.of("stripe_payment_method_id", "is for the payer; a merchant charges a saved card")
        return asked
    method_id = asked.payment_method_id or ("" if payer.shopper else payment.payment_method_id)
    if payer.shopper:
        raise FieldInvalid.of("stripe_payment_method_id", "is needed: with a publishable key only a new card can pay")
    if not method_id:
        raise FieldInvalid.of("payment_method_id", "is needed, or wallet_id, or stripe_payment_method_id")
    if payer.customer_id and payment.customer_id != payer.customer_id:
        # At Stripe a saved card pays only for its own customer, and the payment has none.
        raise FieldInvalid.of("payment_method_id", "pays only for payments that were created for its owner")
    if payer.customer_id:
        return await saved_card(uow, payer.customer_id, method_id)
    return await card_under_mandate(uow, payment, method_id, off_session=command.manner.off_session)


async def _check_manner(deps: Deps, uow: UnitOfWork, payment: Payment, command: ConfirmPayment) -> None:
    manner, payer = command.manner, command.payer
    if manner.off_session and (payer.customer_id or payer.shopper):
        raise FieldInvalid.of("off_session", "is for merchants: whoever pays is there")
    if manner.save_for is not Usage.NONE:
        if not (payer.customer_id or payer.shopper):
            raise FieldInvalid.of("setup_future_usage", "is given by whoever pays, not by the merchant")
        if not payment.customer_id:
            raise FieldInvalid.of(
                "setup_future_usage", "needs a payment with a customer_id: a saved card belongs to a user"
            )
        if command.source.wallet_id:
            raise FieldInvalid.of("setup_future_usage", "is for cards")
    await check_return_url(deps, uow, payment.merchant_id, manner.return_url)


async def check_return_url(deps: Deps, uow: UnitOfWork, merchant_id: str, url: str) -> None:
    """Refuse a return URL that the merchant, or the platform where there is none, does not allow. Raises FieldInvalid."""
    if url:
        own = await store.payment_settings(uow.conn, merchant_id)
        deps.return_urls.check(url, own.return_url_origins)


async def saved_card(uow: UnitOfWork, owner_id: str, method_id: str) -> Source:
    """Return a user's own card. Raises ResourceNotFound, MethodStateInvalid."""
    # Locked against the user who removes the card just now: they wait for the attempt, and see it.
    method = await store.method(uow.conn, owner_id, method_id, lock=True)
    if method is None:
        raise ResourceNotFound(method_id)
    return _usable(method)


async def card_under_mandate(uow: UnitOfWork, payment: Payment, method_id: str, *, off_session: bool) -> Source:
    """Return a customer's card that the payment's merchant may use. Raises ResourceNotFound where it may not,
    MethodStateInvalid."""
    # Locked, the card first as everywhere, against the user who removes it or takes the mandate back just now: what is charged was
    # there and permitted.
    method = await store.method(uow.conn, payment.customer_id, method_id, lock=True)
    held = await store.active_mandates(
        uow.conn, owner_id=payment.customer_id, merchant_id=payment.owner_id, method_id=method_id, lock=True
    )
    asked = Usage.OFF_SESSION if off_session else Usage.ON_SESSION
    if not payment.customer_id or method is None or not any(mandate.usage.covers(asked) for mandate in held):
        raise ResourceNotFound(method_id)
    return _usable(method)


def _usable(method: PaymentMethod) -> Source:
    if method.state is not MethodState.ATTACHED:
        raise MethodStateInvalid("The payment method is not attached.", method.id, method.state.name)
    return Source(payment_method_id=method.id, stripe_payment_method_id=method.stripe_id)


def _failed_uncharged(attempt: Attempt) -> bool:
    return attempt.state is AttemptState.DECLINED and not attempt.charge_id and not attempt.source.wallet_id


async def begin_attempt(
    deps: Deps, uow: UnitOfWork, payment: Payment, source: Source, manner: Manner, assessment: Assessment = CLEAR
) -> Attempt:
    """Write down the attempt that is about to be sent, or that waits until a person has looked at it: once for a payment. Its row
    is locked by the caller, or new. Raises OperationInProgress, PaymentStateInvalid."""
    review = assessment.review and payment.review is None
    previous = payment.latest_attempt
    if payment.open_operation is not None or (previous is not None and previous.state in OPEN_ATTEMPTS):
        raise OperationInProgress(payment.id)
    triggers: tuple[str, ...] = ("review",) if review else ("send",)
    if payment.state is PaymentState.REQUIRES_PAYMENT_METHOD:
        triggers = ("attach", *triggers)
    if not PAYMENT.allows(payment.state, triggers[0]):
        raise PaymentStateInvalid(
            f"A payment in {payment.state.name} cannot be confirmed.", payment.id, payment.state.name
        )
    now = deps.clock.now()
    attempt = Attempt(
        id=new_id("att", clock=deps.clock, bucket=bucket_of(payment.owner_id)),
        payment_id=payment.id,
        owner_id=payment.owner_id,
        source=source,
        manner=manner,
        state=ATTEMPT.arrow(None, "review" if review else "create").target,
        charge_id="",
        # An attempt that was never sent has no charge of its own; Stripe still shows the one before it.
        prior_charge_id=(previous.charge_id or previous.prior_charge_id) if previous is not None else "",
        prior_uncharged=previous is not None and (previous.prior_uncharged or _failed_uncharged(previous)),
        decline=None,
        next_action=NextAction(),
        create_time=now,
        update_time=now,
    )
    store.insert_attempt(uow.conn, attempt)
    payment = replace(payment, latest_attempt=attempt)
    if review:
        ends = now + deps.review_timeout
        opened = Review(state=ReviewState.OPEN, reasons=assessment.reasons, expire_time=ends)
        deps.outcomes.walk(uow, payment, *triggers, review=opened, due_time=ends)
        return attempt
    deps.outcomes.walk(uow, payment, *triggers)
    await promise_attempt(uow, payment, attempt)
    return attempt


async def promise_attempt(uow: UnitOfWork, payment: Payment, attempt: Attempt) -> None:
    """Write down that an attempt is about to be sent."""
    source = attempt.source
    await uow.outbound.record(
        verb=WALLET_CONFIRM if source.wallet_id else CONFIRM,
        target=attempt.id,
        key=attempt.id,
        request_digest=digest(payment.id, source.wallet_id or source.stripe_payment_method_id),
    )
