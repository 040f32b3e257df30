"""The SQL of the payments domain. Every statement names the owner; a change names the version that it expects."""

from __future__ import annotations

from servers.payments.store.attempts import advance_attempt, attempt_by_id, attempts, insert_attempt, insert_capture
from servers.payments.store.methods import (
    insert_method,
    method,
    method_by_id,
    methods,
    save_stripe_customer,
    stripe_customer,
    update_method,
)
from servers.payments.store.payments import (
    advance,
    insert_payment,
    move_refund_counters,
    payment,
    payment_by_intent,
    payments,
    reserve_refund,
    save_intent_id,
)
from servers.payments.store.refunds import advance_refund, insert_refund, note_refund, refund, refunds

__all__ = [
    "advance",
    "advance_attempt",
    "advance_refund",
    "attempt_by_id",
    "attempts",
    "insert_attempt",
    "insert_capture",
    "insert_method",
    "insert_payment",
    "insert_refund",
    "method",
    "method_by_id",
    "methods",
    "move_refund_counters",
    "note_refund",
    "payment",
    "payment_by_intent",
    "payments",
    "refund",
    "refunds",
    "reserve_refund",
    "save_intent_id",
    "save_stripe_customer",
    "stripe_customer",
    "update_method",
]
