"""What is shed says so with a code that is tried again, and when."""

from __future__ import annotations

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from servers.identity.domain import LoginsBusy
from servers.kernel.errors import Refusal
from servers.runtime.grpc_errors import status_of
from servers.runtime.interceptor import Overloaded
from servers.runtime.throttle import Limit, RateLimited
from servers.wallets.writer import LedgerOverloaded

SHED = [LedgerOverloaded(), LoginsBusy(), Overloaded(), RateLimited(Limit(name="l", burst=1, every_seconds=1), 0.25)]


def details_of(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo]:
    """Return the reason and the time to come back, each of which must be told once."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert [detail.Unpack(info) for detail in status.details].count(True) == 1
    assert [detail.Unpack(retry) for detail in status.details].count(True) == 1
    return info, retry


@pytest.mark.parametrize("refusal", SHED, ids=lambda refusal: type(refusal).__name__)
def test_what_is_shed_is_exhausted_and_tells_when_to_come_back(refusal: Refusal) -> None:
    status = status_of(refusal)
    assert status.code == code_pb2.RESOURCE_EXHAUSTED
    info, retry = details_of(status)
    assert info.domain == "paymesh.dev"
    assert 0 < retry.retry_delay.ToNanoseconds() <= 2_000_000_000
    assert not refusal.stored  # the same key may be tried again
