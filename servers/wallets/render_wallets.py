"""Wallets, top-ups and statements as messages, and the payments of top-ups as news."""

from __future__ import annotations

from paymesh.payments.v1 import payments_pb2
from paymesh.wallets.v1 import wallets_pb2

from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.runtime.render import etag, instant, money, parse_money, stamp
from servers.wallets import wallet_facts
from servers.wallets.domain import StatementLine
from servers.wallets.resources import (
    Charged,
    Decline,
    Holdings,
    News,
    NextAction,
    TopUp,
    TopUpState,
    Wallet,
)

_P = payments_pb2.Payment
_STATES = {
    _P.SUCCEEDED: TopUpState.SUCCEEDED,
    _P.REQUIRES_ACTION: TopUpState.REQUIRES_ACTION,
    _P.CANCELED: TopUpState.FAILED,
    _P.EXPIRED: TopUpState.FAILED,
}
"""What a payment's state means for the top-up. In all others it is on its way; a declined one ends in CANCELED."""
_TYPES = {wallet_facts.CAPTURE: "payment", wallet_facts.REFUND: "payment.refund"}


def render_wallet(wallet: Wallet, held: Holdings | None = None) -> wallets_pb2.Wallet:
    """Return a wallet as a message; without `held`, without what is in it."""
    message = wallets_pb2.Wallet(
        id=wallet.id,
        create_time=stamp(wallet.create_time),
        update_time=stamp(wallet.update_time),
        resource_version=wallet.version,
        etag=etag(wallet.version),
        customer_id=wallet.owner_id,
        currency=wallet.currency,
        state=wallets_pb2.Wallet.State.Value(wallet.state.value),
    )
    if held is not None:
        amounts = {
            "balance": held.account.balance,
            "held": held.account.debits_pending,
            "available": held.account.available,
            "pending": held.pending_minor,
        }
        for name, amount in amounts.items():
            getattr(message, name).CopyFrom(money(Money(amount_minor=amount, currency=wallet.currency)))
    return message


def render_top_up(top_up: TopUp, *, secrets: bool = True) -> wallets_pb2.TopUp:
    """Return a top-up as a message; without `secrets` where others than its owner will read it."""
    message = wallets_pb2.TopUp(
        id=top_up.id,
        create_time=stamp(top_up.create_time),
        update_time=stamp(top_up.update_time),
        resource_version=top_up.version,
        etag=etag(top_up.version),
        wallet_id=top_up.wallet_id,
        amount=money(top_up.amount),
        payment_method_id=top_up.payment_method_id,
        state=wallets_pb2.TopUp.State.Value(top_up.state.value),
        certainty=payments_pb2.UNKNOWN if top_up.uncertain else payments_pb2.CERTAIN,
        payment_id=top_up.payment_id,
        failure_reason=top_up.failure_reason,
    )
    if (action := top_up.next_action) is not None:
        message.next_action.redirect_url = action.redirect_url
        message.next_action.type = payments_pb2.NextAction.Type.Value(action.type)
        message.next_action.stripe_publishable_key = action.stripe_publishable_key
        if secrets:
            message.next_action.stripe_client_secret = action.stripe_client_secret
    if (decline := top_up.decline) is not None:
        message.decline.code = decline.code
        message.decline.message = decline.message
        message.decline.recommended_action = payments_pb2.Decline.RecommendedAction.Value(decline.recommended_action)
    return message


def render_statement_line(line: StatementLine) -> wallets_pb2.BalanceTransaction:
    """Return a line of a wallet's statement: what the ledger calls a line is said in the words of whose wallet it is."""
    kind, _, top_up_id = line.code.partition(".top_")
    return wallets_pb2.BalanceTransaction(
        id=line.transfer_id,
        type=_TYPES.get(kind, kind),
        source_id=f"top_{top_up_id}" if top_up_id else line.source_id.partition(":")[0],
        amount=money(Money(amount_minor=line.amount_minor, currency=line.currency)),
        balance_after=money(Money(amount_minor=line.balance_after_minor, currency=line.currency)),
        effective_time=stamp(line.effective_time),
        record_time=stamp(line.record_time),
    )


def parse_news(payment: payments_pb2.Payment) -> News:
    """Return what a top-up's payment tells. Raises InvariantBroken for one that is captured and has not one capture."""
    state = _STATES.get(payment.state, TopUpState.PENDING)
    charged = action = decline = None
    failure_reason = ""
    if state is TopUpState.SUCCEEDED:
        invariant(len(payment.captures) == 1, "a top-up is captured once", payment_id=payment.id)
        capture = payment.captures[0]
        charged = Charged(
            capture_id=capture.id, amount=parse_money(capture.amount), capture_time=instant(capture.capture_time)
        )
    elif state is TopUpState.REQUIRES_ACTION:
        action = _action(payment.next_action)
    elif state is TopUpState.FAILED:
        if payment.latest_attempt.HasField("decline"):
            decline = _decline(payment.latest_attempt.decline)
        failure_reason = "declined" if decline is not None else "canceled"
    return News(
        top_up_id=payment.top_up_id,
        owner_id=payment.customer_id,
        payment_id=payment.id,
        payment_version=payment.resource_version,
        state=state,
        uncertain=payment.certainty == payments_pb2.UNKNOWN
        and state in (TopUpState.PENDING, TopUpState.REQUIRES_ACTION),
        charged=charged,
        next_action=action,
        decline=decline,
        failure_reason=failure_reason,
    )


def _action(message: payments_pb2.NextAction) -> NextAction:
    return NextAction(
        type=payments_pb2.NextAction.Type.Name(message.type),
        redirect_url=message.redirect_url,
        stripe_client_secret=message.stripe_client_secret,
        stripe_publishable_key=message.stripe_publishable_key,
    )


def _decline(message: payments_pb2.Decline) -> Decline:
    return Decline(
        code=message.code,
        recommended_action=payments_pb2.Decline.RecommendedAction.Name(message.recommended_action),
        message=message.message,
    )
