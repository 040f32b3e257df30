"""What the payments domain tells: one event per change, with the resource as it was right after it."""

from __future__ import annotations

from paymesh.payments.v1 import payments_events_pb2

from servers.payments.domain import (
    Dispute,
    Mandate,
    MerchantFeePlan,
    Payment,
    PaymentMethod,
    ReconciliationItem,
    Refund,
    SetupIntent,
)
from servers.payments.render import (
    Renderer,
    fee_plan_message,
    mandate_message,
    reconciliation_message,
    refund_message,
)
from servers.runtime.outbox import OutboxEvent, event_of


class Events:
    """Renders the domain's events."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def payment(self, kind: str, payment: Payment) -> OutboxEvent:
        """Return the event of a payment's change, without what lets anybody confirm it."""
        message = payments_events_pb2.PaymentEvent(
            payment=self._renderer.payment(payment, secrets=False), customer_id=payment.customer_id
        )
        return event_of(kind, message, root_id=payment.id, subject=payment.id, version=payment.version)

    def refund(self, kind: str, refund: Refund, payment: Payment) -> OutboxEvent:
        """Return the event of a refund's change; its key is the payment's."""
        message = payments_events_pb2.PaymentEvent(
            refund=refund_message(refund), customer_id=payment.customer_id, wallet_id=payment.wallet_id
        )
        return event_of(kind, message, root_id=refund.payment_id, subject=refund.id, version=refund.version)

    def dispute(self, kind: str, dispute: Dispute, payment: Payment) -> OutboxEvent:
        """Return the event of a dispute's change; its key is the payment's."""
        message = payments_events_pb2.PaymentEvent(
            dispute=self._renderer.dispute(dispute), customer_id=payment.customer_id
        )
        return event_of(kind, message, root_id=dispute.payment_id, subject=dispute.id, version=dispute.version)

    def setup(self, kind: str, setup: SetupIntent) -> OutboxEvent:
        """Return the event of a setup intent's change, without what lets anybody confirm it."""
        message = payments_events_pb2.PaymentEvent(
            setup_intent=self._renderer.setup(setup, secrets=False), customer_id=setup.owner_id
        )
        return event_of(kind, message, root_id=setup.id, subject=setup.id, version=setup.version)

    def mandate(self, kind: str, mandate: Mandate) -> OutboxEvent:
        """Return the event of a mandate's change."""
        message = payments_events_pb2.PaymentEvent(mandate=mandate_message(mandate), customer_id=mandate.owner_id)
        return event_of(kind, message, root_id=mandate.id, subject=mandate.id, version=mandate.version)

    def reconciliation(self, kind: str, item: ReconciliationItem) -> OutboxEvent:
        """Return the event of a reconciliation item's change."""
        message = payments_events_pb2.PaymentEvent(reconciliation_item=reconciliation_message(item))
        return event_of(kind, message, root_id=item.id, subject=item.id, version=item.version)

    def fee_plan(self, own: MerchantFeePlan) -> OutboxEvent:
        """Return the event of a merchant's next fee plan: the merchant is its subject."""
        message = payments_events_pb2.PaymentEvent(fee_plan=fee_plan_message(own))
        merchant_id = own.merchant_id
        return event_of("fee_plan.set", message, root_id=merchant_id, subject=merchant_id, version=own.number)

    def method(self, kind: str, method: PaymentMethod) -> OutboxEvent:
        """Return the event of a payment method's change."""
        message = payments_events_pb2.PaymentEvent(payment_method=self._renderer.method(method))
        return event_of(kind, message, root_id=method.id, subject=method.id, version=method.version)
