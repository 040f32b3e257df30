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
from servers.payments.usecases.changes import (
    CHANGEABLE,
    UpdatePayment,
    update_payment,
)
from servers.payments.usecases.confirm import (
    ConfirmPayment,
    Payer,
    confirm_payment,
)
from servers.payments.usecases.deciding import Decider
from servers.payments.usecases.deps import (
    Deps,
)
from servers.payments.usecases.disputes import (
    ACCEPT,
    accept_dispute,
    drive_accept,
    learn_dispute,
    learn_warning,
    refresh_dispute,
)
from servers.payments.usecases.due import (
    act_on_due,
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
    Unaccounted,
    account_for,
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
from servers.payments.usecases.reconciliation import (
    ItemDecision,
    ResolveItem,
    Timing,
    reconcile,
    resolve_item,
    rounds,
)
from servers.payments.usecases.refund_cancels import (
    CANCEL_REFUND,
    cancel_refund,
    drive_refund_cancel,
    refund_of_cancel,
)
from servers.payments.usecases.refunds import (
    CreateRefund,
    create_refund,
    drive_refund,
    learn_refund,
    refresh_refund,
    retry_refunds,
)
from servers.payments.usecases.resolving import (
    Verdict,
    resolve_conflict,
    resolve_payment,
    resolve_refund,
)
from servers.payments.usecases.reviews import (
    approve_payment,
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
    "ACCEPT",
    "ATTACH",
    "CANCEL",
    "CANCEL_REFUND",
    "CAPTURE",
    "CHANGEABLE",
    "CONFIRM",
    "DETACH",
    "SET_UP",
    "WALLET_CONFIRM",
    "WALLET_OPERATION",
    "CapturePayment",
    "ChargeTopUp",
    "ConfirmPayment",
    "CreatePayment",
    "CreateRefund",
    "Decider",
    "Deps",
    "ItemDecision",
    "Payer",
    "ReplaceFeePlan",
    "ResolveItem",
    "Timing",
    "Unaccounted",
    "UpdatePayment",
    "Verdict",
    "accept_dispute",
    "account_for",
    "act_on_due",
    "approve_payment",
    "attach_method",
    "cancel_payment",
    "cancel_refund",
    "capture_payment",
    "charge_top_up",
    "confirm_payment",
    "confirm_setup",
    "create_payment",
    "create_payment_method",
    "create_refund",
    "create_setup",
    "detach_payment_method",
    "drive_accept",
    "drive_attempt",
    "drive_operation",
    "drive_refund",
    "drive_refund_cancel",
    "drive_setup",
    "end_windows",
    "finish_detach",
    "give_up_attempt",
    "give_up_operation",
    "learn_attempt",
    "learn_dispute",
    "learn_payment",
    "learn_refund",
    "learn_setup",
    "learn_warning",
    "reconcile",
    "refresh_dispute",
    "refresh_payment",
    "refresh_refund",
    "refresh_setup",
    "refund_of_cancel",
    "replace_fee_plan",
    "replace_settings",
    "resolve_conflict",
    "resolve_item",
    "resolve_payment",
    "resolve_refund",
    "retry_refunds",
    "revoke_mandate",
    "rounds",
    "set_default_method",
    "update_payment",
    "visible_setup",
]
