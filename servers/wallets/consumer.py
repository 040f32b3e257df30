"""What wallets does with the payments domain's events: book captures, failed refunds and disputes, for the first time or once more,
and tell top-ups how their payments stand."""

from __future__ import annotations

from paymesh.payments.v1 import payments_events_pb2, payments_pb2

from servers.runtime.consumer import Handler
from servers.runtime.db import UnitOfWork
from servers.runtime.eventlog import Delivered, EventRecord
from servers.runtime.render import instant, parse_money
from servers.wallets.facts import CaptureFact, RefundFailedFact
from servers.wallets.render import delay_of, facts_of_dispute
from servers.wallets.render_wallets import parse_news
from servers.wallets.suspense_facts import SuspenseFact
from servers.wallets.usecases import Deps, hear_of_payment
from servers.wallets.writer import Writer

GROUP = "wallets"
TOPICS = ("paymesh.payments.v1",)
_CAPTURING = ("payment.succeeded", "payment.partially_captured")
_OF_PAYMENT = (
    *_CAPTURING,
    "payment.processing",
    "payment.requires_action",
    "payment.declined",
    "payment.canceled",
    "payment.expired",
    "payment.conflicted",
)
"""Those that may change the state of a top-up: not what happens before its card is charged, nor counters of refunds."""

_OF_DISPUTE = tuple(
    f"dispute.{kind}" for kind in ("opened", "updated", "funds_withdrawn", "funds_reinstated", "won", "lost", "closed")
)


def concerns(record: EventRecord) -> bool:
    """Tell whether an event says anything to the ledger or a top-up: of a payment for a merchant, only what was captured, and what
    is in suspense."""
    if record.type not in _OF_PAYMENT and record.type != "payment.updated":
        return True
    payment = payments_events_pb2.PaymentEvent.FromString(record.data).payment
    is_top_up = payment.purpose == payments_pb2.Payment.TOP_UP and record.type != "payment.updated"
    return is_top_up or record.type in _CAPTURING or bool(payment.suspense_items)


def handlers(writer: Writer, deps: Deps) -> dict[str, Handler]:
    """Return what is done with each type. The facts' ids make a repeat harmless even where the inbox row was lost."""

    async def payment_updated(_: UnitOfWork, delivered: Delivered) -> None:
        payment = payments_events_pb2.PaymentEvent.FromString(delivered.record.data).payment
        await _book_suspense(writer, payment)

    async def payment_changed(uow: UnitOfWork, delivered: Delivered) -> None:
        event = payments_events_pb2.PaymentEvent.FromString(delivered.record.data)
        payment = event.payment
        await _book_suspense(writer, payment)
        if payment.purpose == payments_pb2.Payment.TOP_UP:
            news = parse_news(payment)
            await deps.outcomes.book(news)
            await hear_of_payment(deps, uow, news)
        elif event.type in _CAPTURING and not payment.latest_attempt.wallet_id:
            # What a wallet paid was taken from its hold before payments knew of the capture.
            for capture in payment.captures:
                await writer.post_fact(_capture(payment, capture))

    async def refund_ended(_: UnitOfWork, delivered: Delivered) -> None:
        event = payments_events_pb2.PaymentEvent.FromString(delivered.record.data)
        fact = RefundFailedFact(
            refund_id=event.refund.id,
            merchant_id=event.refund.merchant_id or event.customer_id,
            fail_time=instant(event.occur_time),
        )
        await writer.post_fact(fact)

    async def dispute_changed(_: UnitOfWork, delivered: Delivered) -> None:
        event = payments_events_pb2.PaymentEvent.FromString(delivered.record.data)
        occur_time = instant(event.occur_time)
        for fact in facts_of_dispute(event.dispute, customer_id=event.customer_id, occur_time=occur_time):
            await writer.post_fact(fact)

    return {
        **dict.fromkeys(_OF_PAYMENT, payment_changed),
        **dict.fromkeys(_OF_DISPUTE, dispute_changed),
        "payment.updated": payment_updated,
        "refund.failed": refund_ended,
        "refund.canceled": refund_ended,
    }


async def _book_suspense(writer: Writer, payment: payments_pb2.Payment) -> None:
    """Book what Stripe took without being asked for it."""
    for item in payment.suspense_items:
        await writer.post_fact(_suspense(payment, item))


def _suspense(payment: payments_pb2.Payment, item: payments_pb2.SuspenseItem) -> SuspenseFact:
    return SuspenseFact(
        suspense_item_id=item.id,
        owner_id=payment.merchant_id or payment.customer_id,
        amount=parse_money(item.amount),
        find_time=instant(item.create_time),
    )


def _capture(payment: payments_pb2.Payment, capture: payments_pb2.Capture) -> CaptureFact:
    item = next((item for item in payment.suspense_items if item.id == capture.suspense_item_id), None)
    return CaptureFact(
        suspense=_suspense(payment, item) if item is not None else None,
        capture_id=capture.id,
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        amount=parse_money(capture.amount),
        fee=parse_money(capture.fee),
        capture_time=instant(capture.capture_time),
        settlement_delay=delay_of(capture),
        fee_returnable=capture.fee_refund == payments_pb2.FeePlan.RETURNED,
    )
