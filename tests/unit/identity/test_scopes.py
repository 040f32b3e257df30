"""Who may carry what: roles, keys and customers."""

from __future__ import annotations

import pytest

from servers.identity.domain import (
    API_KEY_SCOPES,
    CUSTOMER_SCOPES,
    PUBLISHABLE_KEY_SCOPES,
    ROLE_SCOPES,
    STAFF_ROLE_SCOPES,
    ApiKeyKind,
)
from servers.runtime.call import PrincipalKind
from servers.runtime.policy import policies_of
from tests.unit.test_contract import SERVICES

OF_PAYMENTS = {
    *("disputes:read", "disputes:write"),
    *("payments:confirm", "setup_intents:read", "setup_intents:write", "mandates:read"),
    *("payment_methods:read", "payment_settings:read", "payment_settings:write"),
}
OF_CUSTOMERS = {
    *("setup_intents:read", "setup_intents:write", "setup_intents:confirm", "mandates:read", "mandates:write"),
    *("wallets:read", "wallets:write"),
}


GRANTED = {
    PrincipalKind.CUSTOMER: CUSTOMER_SCOPES,
    PrincipalKind.MEMBER: frozenset[str]().union(*ROLE_SCOPES.values()),
    PrincipalKind.API_KEY: API_KEY_SCOPES,
    PrincipalKind.PAYMENT_CLIENT: frozenset(PUBLISHABLE_KEY_SCOPES),
    PrincipalKind.STAFF: frozenset[str]().union(*STAFF_ROLE_SCOPES.values()),
}


@pytest.mark.parametrize("kind", PrincipalKind, ids=lambda kind: kind.name)
def test_a_kind_of_caller_is_granted_exactly_the_scopes_of_the_methods_that_it_may_use(kind: PrincipalKind) -> None:
    asked = {policy.scope for policy in policies_of(SERVICES).values() if kind in policy.audience and policy.scope}
    assert GRANTED.get(kind, frozenset()) == asked


def test_whoever_writes_payments_can_do_all_around_them() -> None:
    for scopes in (API_KEY_SCOPES, *(found for found in ROLE_SCOPES.values() if "payments:write" in found)):
        assert scopes >= OF_PAYMENTS
    assert {role for role, found in ROLE_SCOPES.items() if "payments:write" in found} == {"owner", "admin"}


def test_customers_have_what_is_theirs() -> None:
    assert CUSTOMER_SCOPES >= OF_CUSTOMERS


@pytest.mark.parametrize("role", ["viewer", "support"])
def test_who_only_looks_changes_nothing_of_the_merchants(role: str) -> None:
    assert {scope for scope in ROLE_SCOPES[role] if not scope.endswith(":read")} == {"users:write", "sessions:write"}


def test_an_owner_can_grant_every_scope_of_a_secret_key() -> None:
    assert ROLE_SCOPES["owner"] >= API_KEY_SCOPES


def test_a_publishable_key_writes_nothing() -> None:
    assert {scope.split(":")[1] for scope in PUBLISHABLE_KEY_SCOPES} == {"read", "confirm"}


def test_the_beginning_of_a_key_tells_its_kind_and_mode() -> None:
    prefixes = {(kind, live): kind.prefix(livemode=live) for kind in ApiKeyKind for live in (False, True)}
    assert prefixes == {
        (ApiKeyKind.SECRET, False): "pm_sk_test_",
        (ApiKeyKind.SECRET, True): "pm_sk_live_",
        (ApiKeyKind.PUBLISHABLE, False): "pm_pk_test_",
        (ApiKeyKind.PUBLISHABLE, True): "pm_pk_live_",
    }
