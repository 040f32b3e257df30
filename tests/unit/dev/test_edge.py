"""What the edge's configuration is made from: the contract, and nothing beside it."""

from __future__ import annotations

import re

import pytest

from dev import edge


@pytest.mark.parametrize(
    ("path", "matches", "others"),
    [
        (
            "/v1/payments/{payment_id}/return",
            ["/v1/payments/pay_1/return"],
            ["/v1/payments//return", "/v1/payments/a/b/return", "/v1/payments/a:b/return", "/v1/payments/a/returns"],
        ),
        (
            "/v1/payments/{payment_id}:confirm",
            ["/v1/payments/pay_1:confirm"],
            ["/v1/payments/pay_1/confirm", "/v1/payments/pay_1:confirm/", "/v1/payments/:confirm"],
        ),
        ("/.well-known/jwks.json", ["/.well-known/jwks.json"], ["/.well-known/jwks-json"]),
    ],
)
def test_a_pattern_takes_one_segment_for_each_variable(path: str, matches: list[str], others: list[str]) -> None:
    pattern = re.compile(edge.pattern_of(path))
    assert [one for one in [*matches, *others] if pattern.fullmatch(one)] == matches


def test_every_method_has_its_route_and_only_public_ones_are_open() -> None:
    found = edge.methods()
    made = edge.routes(found)
    assert len([route for route in made if "paymesh" not in str(route.match)]) == len(found)
    assert {route.cluster for route in made} == {"identity", "payments", "wallets", "notifications"}
    public = [route for route in made if route.public]
    assert len(public) == 2 * len([method for method in found if edge.is_public(method)])


def test_what_tries_cards_or_passwords_is_limited_on_both_of_its_paths() -> None:
    found = edge.methods()
    made = edge.routes(found)
    named = {method.name for method in found}
    assert named >= edge.CREDENTIAL_METHODS
    for limit, names in (("cards", edge.CARD_METHODS & named), ("credentials", edge.CREDENTIAL_METHODS)):
        assert len([route for route in made if route.limit == limit]) == 2 * len(names)
    assert not [route for route in made if route.limit == "cards" and route.public]


def test_without_limits_there_are_none() -> None:
    assert edge.NO_LIMITS.keys() == edge.LIMITS.keys()
    assert {limit["per_second"] for limit in edge.NO_LIMITS.values()} == {10_000_000}
