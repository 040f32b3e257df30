"""Who works for the platform: made on its machine only, let in by a second factor, for a quarter of an hour."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.support.stack import Shop, reason_of, refusal_of
from tests.support.staff import colleague

REFUSED = (401, "STAFF_CODE_INVALID")


def claims_of(token: str) -> Any:
    """Return what a token says."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_a_code_lets_staff_in_once_with_what_their_role_may(shop: Shop) -> None:
    ada = colleague(shop, "operator")
    code = ada.code()
    answer = shop.ok(ada.switch(code))
    claims = claims_of(answer["access_token"])
    assert (claims["typ"], claims["role"], answer["refresh_token"]) == ("staff", "operator", "")
    assert "payments:resolve" in claims["scope"].split()
    assert claims["exp"] - claims["iat"] == answer["expires_in_seconds"] == 900
    # Whoever looked over the shoulder comes too late.
    assert refusal_of(ada.switch(code)) == REFUSED
    payment = shop.payment()
    path = f"/v1/payments/{payment['id']}"
    seen = shop.ok(shop.call("GET", path, token=answer["access_token"]))
    assert (seen["id"], seen["client_secret"]) == (payment["id"], "")


def test_a_wrong_code_and_no_role_look_the_same_and_guessing_is_slowed_down(shop: Shop) -> None:
    nobody, ada = colleague(shop), colleague(shop, "support")
    wrong = "000000" if ada.code() != "000000" else "000001"
    told = []
    for who in (nobody, ada):
        answers = [who.switch(wrong) for _ in range(6)]
        assert [refusal_of(answer) for answer in answers[:5]] == [REFUSED] * 5
        assert refusal_of(answers[5]) == (429, "RATE_LIMITED")
        told.append(answers[0].json())
    assert told[0] == told[1]


def test_a_role_without_the_scope_reads_and_does_not_decide(shop: Shop) -> None:
    token = shop.ok(colleague(shop, "support").switch())["access_token"]
    payment = shop.payment()
    shop.ok(shop.call("GET", f"/v1/payments/{payment['id']}", token=token))
    body = {"decision": "READ_AGAIN", "reason": "because"}
    refused = shop.call("POST", f"/v1/payments/{payment['id']}:resolve", body, token=token)
    assert refusal_of(refused) == (403, "SCOPE_MISSING")
    assert reason_of(shop.call("POST", "/v1/payments", shop.order(100), token=token)) == "CALLER_NOT_ALLOWED"


def test_a_role_is_taken_away_and_a_lost_secret_replaced(shop: Shop) -> None:
    ada, cli = colleague(shop, "finance"), shop.platform.cli
    shop.ok(ada.switch())
    assert "otpauth" not in cli("staff", "set", ada.email, "operator").stdout  # the secret is told once
    old = ada.secret
    ada.learn(cli("staff", "set", ada.email, "operator", "--new-secret").stdout)
    fresh, ada.secret = ada.secret, old
    assert refusal_of(ada.switch()) == REFUSED
    ada.secret = fresh
    assert claims_of(shop.ok(ada.switch())["access_token"])["role"] == "operator"
    assert cli("staff", "remove", ada.email).returncode == 0
    assert refusal_of(ada.switch()) == REFUSED
    listed = cli("staff", "list").stdout
    assert any(ada.email in line and "removed" in line for line in listed.splitlines())
    again = cli("staff", "remove", ada.email)
    assert (again.returncode, "RESOURCE_NOT_FOUND" in again.stderr) == (1, True)
    assert cli("staff", "set", ada.email, "support").stdout.count("otpauth://") == 1  # who comes back gets a new one


@pytest.mark.parametrize(
    ("email", "role", "why"),
    [("nobody@example.com", "operator", "RESOURCE_NOT_FOUND"), ("ada@example.com", "root", "FIELD_INVALID")],
)
def test_the_command_line_says_what_is_wrong(shop: Shop, email: str, role: str, why: str) -> None:
    done = shop.platform.cli("staff", "set", email, role)
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr


def test_an_address_that_is_not_verified_gets_no_role(shop: Shop) -> None:
    email = shop.ok(shop.call("GET", "/v1/users/me", token=shop.customer_token))["email"]
    done = shop.platform.cli("staff", "set", email, "operator")
    assert (done.returncode, "EMAIL_NOT_VERIFIED" in done.stderr) == (1, True)
