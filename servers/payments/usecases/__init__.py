"""One function per command. Each owns its transactions; none is open while Stripe or the ledger is called.

The intent is durable before the call. If the process dies in between, the same key resumes from the recovery point, and the
janitor resolves the call by reading even if nobody asks again.
"""

from __future__ import annotations

from servers.payments.usecases.attempts import CONFIRM, confirm_payment, drive_attempt, give_up_attempt, learn_attempt
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import (
    CANCEL,
    CAPTURE,
    CapturePayment,
    cancel_payment,
    capture_payment,
    drive_operation,
    give_up_operation,
    learn_payment,
)
from servers.payments.usecases.payment_methods import (
    ATTACH,
    DETACH,
    attach_method,
    create_payment_method,
    detach_payment_method,
    finish_detach,
    set_default_method,
)
from servers.payments.usecases.payments import CreatePayment, create_payment, refresh_payment
from servers.payments.usecases.refunds import REFUND_CALL, CreateRefund, create_refund, drive_refund

__all__ = [
    "ATTACH",
    "CANCEL",
    "CAPTURE",
    "CONFIRM",
    "DETACH",
    "REFUND_CALL",
    "CapturePayment",
    "CreatePayment",
    "CreateRefund",
    "Deps",
    "attach_method",
    "cancel_payment",
    "capture_payment",
    "confirm_payment",
    "create_payment",
    "create_payment_method",
    "create_refund",
    "detach_payment_method",
    "drive_attempt",
    "drive_operation",
    "drive_refund",
    "finish_detach",
    "give_up_attempt",
    "give_up_operation",
    "learn_attempt",
    "learn_payment",
    "refresh_payment",
    "set_default_method",
]
