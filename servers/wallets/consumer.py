"""What the ledger does with the payments domain's events: book captures and failed refunds, for the first time or once more."""

from __future__ import annotations

from paymesh.payments.v1 import payments_events_pb2, payments_pb2

from servers.runtime.consumer import Handler
from servers.runtime.db import UnitOfWork
from servers.runtime.eventlog import Delivered
from servers.runtime.render import instant, parse_money
from servers.wallets.facts import CaptureFact, RefundFailedFact
from servers.wallets.writer import Writer

GROUP = "wallets"
TOPICS = ("paymesh.payments.v1",)


def handlers(writer: Writer) -> dict[str, Handler]:
    """Return what is done with each type. The facts' ids make a repeat harmless even where the inbox row was lost."""

    async def captured(_: UnitOfWork, delivered: Delivered) -> None:
        payment = payments_events_pb2.PaymentEvent.FromString(delivered.record.data).payment
        for capture in payment.captures:
            await writer.post_fact(_capture(payment, capture))

    async def refund_ended(_: UnitOfWork, delivered: Delivered) -> None:
        event = payments_events_pb2.PaymentEvent.FromString(delivered.record.data)
        fact = RefundFailedFact(
            refund_id=event.refund.id,
            merchant_id=event.refund.merchant_id,
            fail_time=instant(event.occur_time),
        )
        await writer.post_fact(fact)

    return {"payment.succeeded": captured, "payment.partially_captured": captured, "refund.failed": refund_ended}


def _capture(payment: payments_pb2.Payment, capture: payments_pb2.Capture) -> CaptureFact:
    return CaptureFact(
        capture_id=capture.id,
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        amount=parse_money(capture.amount),
        fee=parse_money(capture.fee),
        capture_time=instant(capture.capture_time),
    )
