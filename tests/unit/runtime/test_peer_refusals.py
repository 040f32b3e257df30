"""What another server refuses is raised on as it is, and a fault of its own is not taken for a refusal."""

from __future__ import annotations

import grpc
import pytest

from servers.kernel.errors import ConcurrentUpdate, FieldInvalid, FieldViolation, Refusal, ResourceNotFound
from servers.runtime.channels import PeerUnavailable, peer_answer
from servers.runtime.grpc_errors import STATUS_DETAILS, deadline_status, internal_status, status_of

REFUSALS = [
    ResourceNotFound("pm_1"),
    FieldInvalid(
        FieldViolation(field="return_url", description="must be https"),
        FieldViolation(field="amount.amount_minor", description="is too little"),
    ),
    ConcurrentUpdate("pay_1"),
    PeerUnavailable("stripe"),
]


def answered(details: bytes) -> grpc.aio.AioRpcError:
    """Return what a call raises that was answered with a status."""
    trailing = grpc.aio.Metadata((STATUS_DETAILS, details))
    return grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), trailing)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason)
def test_a_refusal_arrives_as_it_was_made(refusal: Refusal) -> None:
    told = peer_answer(answered(status_of(refusal).SerializeToString()))
    assert told is not None
    assert status_of(told) == status_of(refusal)
    assert (told.kind, told.stored) == (refusal.kind, refusal.stored)


@pytest.mark.parametrize("status", [internal_status(), deadline_status()])
def test_a_fault_is_no_refusal(status: object) -> None:
    assert peer_answer(answered(status.SerializeToString())) is None  # type: ignore[attr-defined]  # a status


def test_no_answer_is_no_refusal() -> None:
    assert (
        peer_answer(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())) is None
    )
