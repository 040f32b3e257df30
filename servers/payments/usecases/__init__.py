"""One function per command. Each owns its transactions; none is open while Stripe or the ledger is called.

The intent is durable before the call. If the process dies in between, the same key resumes from the recovery point, and the
janitor resolves the call by reading even if nobody asks again.
"""

from __future__ import annotations

from servers.payments.usecases.attempts import (
    CONFIRM,
    drive_attempt,
    give_up_attempt,
    learn_attempt,
)
from servers.payments.usecases.confirm import (
    ConfirmPayment,
    Payer,
    confirm_payment,
)
from servers.payments.usecases.deps import (
    Deps,
)
from servers.payments.usecases.fee_plans import ReplaceFeePlan, replace_fee_plan
from servers.payments.usecases.mandates import (
    replace_settings,
    revoke_mandate,
)
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
from servers.payments.usecases.payments import (
    CreatePayment,
    create_payment,
    end_windows,
    refresh_payment,
)
from servers.payments.usecases.refunds import (
    REFUND_CALL,
    CreateRefund,
    create_refund,
    drive_refund,
)
from servers.payments.usecases.setup_intents import (
    SET_UP,
    confirm_setup,
    create_setup,
    drive_setup,
    learn_setup,
    refresh_setup,
    visible_setup,
)
from servers.payments.usecases.top_ups import (
    ChargeTopUp,
    charge_top_up,
)
from servers.payments.usecases.wallet_rail import (
    WALLET_CONFIRM,
    WALLET_OPERATION,
)

__all__ = [
    "ATTACH",
    "CANCEL",
    "CAPTURE",
    "CONFIRM",
    "DETACH",
    "REFUND_CALL",
    "SET_UP",
    "WALLET_CONFIRM",
    "WALLET_OPERATION",
    "CapturePayment",
    "ChargeTopUp",
    "ConfirmPayment",
    "CreatePayment",
    "CreateRefund",
    "Deps",
    "Payer",
    "ReplaceFeePlan",
    "attach_method",
    "cancel_payment",
    "capture_payment",
    "charge_top_up",
    "confirm_payment",
    "confirm_setup",
    "create_payment",
    "create_payment_method",
    "create_refund",
    "create_setup",
    "detach_payment_method",
    "drive_attempt",
    "drive_operation",
    "drive_refund",
    "drive_setup",
    "end_windows",
    "finish_detach",
    "give_up_attempt",
    "give_up_operation",
    "learn_attempt",
    "learn_payment",
    "learn_setup",
    "refresh_payment",
    "refresh_setup",
    "replace_fee_plan",
    "replace_settings",
    "revoke_mandate",
    "set_default_method",
    "visible_setup",
]
