"""The gRPC face of the payments domain, one module for each resource: proto in, use case, proto out."""

from __future__ import annotations

from servers.payments.service.disputes import Disputes
from servers.payments.service.fee_plans import FeePlanVersions
from servers.payments.service.payment_methods import PaymentMethods
from servers.payments.service.payments import Payments
from servers.payments.service.reconciliation import Reconciliation
from servers.payments.service.refunds import Refunds
from servers.payments.service.resolving import Resolving
from servers.payments.service.setup_intents import SetupIntents
from servers.payments.service.stripe_events import StripeEventService
from servers.payments.service.top_ups import TopUpPaymentService
from servers.payments.service.webhooks import Intake

__all__ = ["PaymentService", "StripeEventService", "TopUpPaymentService"]


class PaymentService(
    PaymentMethods, Payments, Refunds, Disputes, SetupIntents, FeePlanVersions, Resolving, Reconciliation, Intake
):
    """Card payments, for customers, shoppers, merchants and staff."""
