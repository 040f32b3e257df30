"""The Python client of Paymesh: typed stubs whose calls carry their credential, a deadline and a request id, are tried again where
that is safe, and raise typed errors.

    from paymesh_client import Paymesh
    with Paymesh.outside("localhost:8443", credential="pm_sk_test_…", ca_file="edge-ca.crt") as client:
        payment = client.payments.GetPayment(GetPaymentRequest(payment_id="pay_…"))

`AsyncPaymesh` is the same with `async with` and `await`. `inside` connects to one server of the mesh over mTLS.
"""

from __future__ import annotations

from paymesh_client.client import AsyncPaymesh, Paymesh
from paymesh_client.errors import (
    AuthenticationFailed,
    Conflict,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PaymeshError,
    PermissionDenied,
    PreconditionFailed,
    RateLimited,
    Unavailable,
)
from paymesh_client.retries import Retries

__all__ = [
    "AsyncPaymesh",
    "AuthenticationFailed",
    "Conflict",
    "FieldViolation",
    "InternalError",
    "InvalidRequest",
    "NotFound",
    "OutcomeUnknown",
    "Paymesh",
    "PaymeshError",
    "PermissionDenied",
    "PreconditionFailed",
    "RateLimited",
    "Retries",
    "Unavailable",
]
