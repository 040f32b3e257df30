"""What the payments domain tells: one event per change, with the resource as it was right after it."""

from __future__ import annotations

from datetime import datetime

from paymesh.payments.v1 import payments_events_pb2

from servers.payments.domain import Mandate, Payment, PaymentMethod, Refund, SetupIntent
from servers.payments.render import Renderer, mandate_message, refund_message
from servers.runtime.outbox import OutboxEvent
from servers.runtime.render import stamp


class Events:
    """Renders the domain's events."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def payment(self, kind: str, payment: Payment) -> OutboxEvent:
        """Return the event of a payment's change, without what lets anybody confirm it."""
        message = payments_events_pb2.PaymentEvent(
            payment=self._renderer.payment(payment, secrets=False), customer_id=payment.customer_id
        )
        return _event(kind, payment.id, payment.id, payment.version, message)

    def refund(self, kind: str, refund: Refund, payment: Payment) -> OutboxEvent:
        """Return the event of a refund's change; its key is the payment's."""
        message = payments_events_pb2.PaymentEvent(refund=refund_message(refund), customer_id=payment.customer_id)
        return _event(kind, refund.payment_id, refund.id, refund.version, message)

    def setup(self, kind: str, setup: SetupIntent) -> OutboxEvent:
        """Return the event of a setup intent's change, without what lets anybody confirm it."""
        message = payments_events_pb2.PaymentEvent(
            setup_intent=self._renderer.setup(setup, secrets=False), customer_id=setup.owner_id
        )
        return _event(kind, setup.id, setup.id, setup.version, message)

    def mandate(self, kind: str, mandate: Mandate) -> OutboxEvent:
        """Return the event of a mandate's change."""
        message = payments_events_pb2.PaymentEvent(mandate=mandate_message(mandate), customer_id=mandate.owner_id)
        return _event(kind, mandate.id, mandate.id, mandate.version, message)

    def method(self, kind: str, method: PaymentMethod) -> OutboxEvent:
        """Return the event of a payment method's change."""
        message = payments_events_pb2.PaymentEvent(payment_method=self._renderer.method(method))
        return _event(kind, method.id, method.id, method.version, message)


def _event(
    kind: str, root_id: str, subject: str, version: int, message: payments_events_pb2.PaymentEvent
) -> OutboxEvent:
    def render(event_id: str, occur_time: datetime) -> bytes:
        message.event_id = event_id
        message.type = kind
        message.subject = subject
        message.version = version
        message.occur_time.CopyFrom(stamp(occur_time))
        return message.SerializeToString(deterministic=True)

    return OutboxEvent(type=kind, root_id=root_id, subject=subject, version=version, render=render)
