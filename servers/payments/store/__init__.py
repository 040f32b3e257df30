"""The SQL of the payments domain. Every statement names the owner; a change names the version that it expects."""

from __future__ import annotations

from servers.payments.store.attempts import (
    advance_attempt,
    attempt_by_id,
    attempts,
    captures,
    insert_attempt,
    insert_capture,
)
from servers.payments.store.methods import (
    default_method,
    insert_method,
    method,
    method_by_id,
    method_in_use,
    methods,
    save_stripe_customer,
    stripe_customer,
    update_method,
)
from servers.payments.store.operations import advance_operation, insert_operation, operation_by_id
from servers.payments.store.payments import (
    advance,
    insert_payment,
    move_refund_counters,
    payment,
    payment_by_intent,
    payments,
    release_capture,
    reserve_capture,
    reserve_refund,
    save_intent_id,
)
from servers.payments.store.refunds import (
    advance_refund,
    insert_refund,
    note_refund,
    refund,
    refunds,
    refunds_of_merchant,
)

__all__ = [
    "advance",
    "advance_attempt",
    "advance_operation",
    "advance_refund",
    "attempt_by_id",
    "attempts",
    "captures",
    "default_method",
    "insert_attempt",
    "insert_capture",
    "insert_method",
    "insert_operation",
    "insert_payment",
    "insert_refund",
    "method",
    "method_by_id",
    "method_in_use",
    "methods",
    "move_refund_counters",
    "note_refund",
    "operation_by_id",
    "payment",
    "payment_by_intent",
    "payments",
    "refund",
    "refunds",
    "refunds_of_merchant",
    "release_capture",
    "reserve_capture",
    "reserve_refund",
    "save_intent_id",
    "save_stripe_customer",
    "stripe_customer",
    "update_method",
]
