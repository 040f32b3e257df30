"""What docs/api.md says of errors is what the contract and the Python client say of them."""

from __future__ import annotations

import re

import grpc
import paymesh_client
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from paymesh.errors.v1.error_reason_pb2 import ErrorReason
from paymesh_client.errors import DETAILS_KEY, error_of

from dev.paths import ROOT

REASONS = [name for name in ErrorReason.DESCRIPTOR.values_by_name if name != "ERROR_REASON_UNSPECIFIED"]
VALUE = re.compile(r"^  // ([A-Z_]+), (\d{3})\. (?:[^\n]*\n  //)*[^\n]*\n  ([A-Z_]+) = \d+;", re.MULTILINE)
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| (\d{3}) \| `(\w+)` \| \S.* \|$", re.MULTILINE)
CATALOGUE = (ROOT / "proto/paymesh/errors/v1/error_reason.proto").read_text()
CODES = {reason: (code, status) for code, status, reason in VALUE.findall(CATALOGUE)}


def test_the_table_of_errors_is_the_catalogue() -> None:
    rows = ROW.findall((ROOT / "docs/api.md").read_text())
    assert [row[0] for row in rows] == REASONS
    assert {reason: (code, status) for reason, code, status, _ in rows} == CODES


@pytest.mark.parametrize("reason", REASONS)
def test_the_client_raises_the_documented_class_for_every_reason(reason: str) -> None:
    documented = {row[0]: row[3] for row in ROW.findall((ROOT / "docs/api.md").read_text())}
    info = error_details_pb2.ErrorInfo(reason=reason, domain="paymesh.dev", metadata={"key": "value"})
    detail = AnyMessage()
    detail.Pack(info)
    code = grpc.StatusCode[CODES[reason][0]]
    raw = status_pb2.Status(code=code.value[0], details=[detail]).SerializeToString()
    error = error_of(code, "a message", ((DETAILS_KEY, raw),), "an id")
    assert type(error) is getattr(paymesh_client, documented[reason])
    assert isinstance(error, paymesh_client.PaymeshError)
    assert (error.reason, error.metadata, error.request_id) == (reason, {"key": "value"}, "an id")
