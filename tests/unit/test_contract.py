"""The contract: every method says who may call it, every rule compiles, nothing about it can be forgotten."""

from __future__ import annotations

import protovalidate
import pytest
from buf.validate import validate_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from paymesh.identity.v1 import identity_pb2, staff_pb2
from paymesh.notifications.v1 import notifications_pb2
from paymesh.payments.v1 import payments_pb2, stripe_events_pb2, top_ups_pb2
from paymesh.wallets.v1 import ledger_pb2, wallets_pb2

from servers.runtime.call import PrincipalKind
from servers.runtime.logs import redacted
from servers.runtime.policy import EDGE, PolicyMissing, policies_of, policy_of

FILES = (
    *(identity_pb2, staff_pb2, payments_pb2, top_ups_pb2, stripe_events_pb2),
    *(wallets_pb2, ledger_pb2, notifications_pb2),
)
SERVICES: list[ServiceDescriptor] = [s for file in FILES for s in file.DESCRIPTOR.services_by_name.values()]
METHODS = [method for service in SERVICES for method in service.methods]


def test_every_method_declares_its_policy() -> None:
    assert len(policies_of(SERVICES)) == len(METHODS)


def test_a_method_without_a_policy_stops_the_server() -> None:
    from grpc_health.v1 import health_pb2

    with pytest.raises(PolicyMissing):
        policy_of(health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_rule_of_a_request_compiles(method: object) -> None:
    message = message_factory.GetMessageClass(method.input_type)()  # type: ignore[attr-defined]  # a MethodDescriptor
    protovalidate.collect_violations(message)


def test_a_rule_of_a_whole_message_is_named_after_the_field_that_it_complains_of() -> None:
    named = [
        (method.input_type, rule.id.partition(".")[0])
        for method in METHODS
        for rule in method.input_type.GetOptions().Extensions[validate_pb2.message].cel
    ]
    assert len(named) >= 4
    assert [(message.name, field) for message, field in named if field not in message.fields_by_name] == []


def test_every_list_pages_the_same_way() -> None:
    lists = [method for method in METHODS if method.name.startswith("List")]
    assert len(lists) > 5
    for method in lists:
        asked, answered = method.input_type.fields_by_name, method.output_type.fields_by_name
        assert {"page_size", "page_token"} <= set(asked.keys()), method.name
        assert "next_page_token" in answered, method.name


def test_what_moves_money_demands_a_key() -> None:
    demanding = {name.rsplit("/", 1)[1] for name, policy in policies_of(SERVICES).items() if policy.key_required}
    assert demanding == {
        "CreatePayment",
        "ConfirmPayment",
        "CapturePayment",
        "ApprovePayment",
        "RejectPayment",
        "CancelPayment",
        "CreateRefund",
        "AcceptDispute",
        "CancelRefund",
        "CreateTopUp",
        "ResolveConflict",
        "ResolvePayment",
        "ResolveRefund",
    }


def test_what_moves_money_can_be_rehearsed() -> None:
    demanding = [method for method in METHODS if policy_of(method).key_required]
    for method in demanding:
        field = method.input_type.fields_by_name.get("validate_only")
        assert field is not None, method.name
        assert field.type == field.TYPE_BOOL


def test_the_ledger_is_out_of_the_edges_reach() -> None:
    ledger = policies_of([ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"]])
    assert all(EDGE not in policy.callers and policy.audience == {PrincipalKind.SERVICE} for policy in ledger.values())


def test_what_is_sensitive_does_not_reach_a_log() -> None:
    request = identity_pb2.RegisterUserRequest(email="a@b.example", password="hunter22", display_name="Ada")
    assert str(redacted(request)) == ""
    tokens = identity_pb2.SessionTokens(access_token="t", user=identity_pb2.User(id="usr_1", email="a@b.example"))
    assert "usr_1" in str(redacted(tokens))
    assert "a@b.example" not in str(redacted(tokens))
