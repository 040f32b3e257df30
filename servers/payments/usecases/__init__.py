"""One function per command. Each owns its transactions; none is open while Stripe or the ledger is called.

The intent is durable before the call. If the process dies in between, the same key resumes from the recovery point, and the
janitor resolves the call by reading even if nobody asks again.
"""

from __future__ import annotations

from servers.payments.usecases.attempts import CONFIRM, confirm_payment, drive_attempt, give_up_attempt, learn_attempt
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.payment_methods import ATTACH, attach_method, create_payment_method
from servers.payments.usecases.payments import CreatePayment, create_payment, refresh_payment
from servers.payments.usecases.refunds import REFUND_CALL, CreateRefund, create_refund, drive_refund

__all__ = [
    "ATTACH",
    "CONFIRM",
    "REFUND_CALL",
    "CreatePayment",
    "CreateRefund",
    "Deps",
    "attach_method",
    "confirm_payment",
    "create_payment",
    "create_payment_method",
    "create_refund",
    "drive_attempt",
    "drive_refund",
    "give_up_attempt",
    "learn_attempt",
    "refresh_payment",
]
