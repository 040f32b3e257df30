"""Bad input and wrong callers, through the edge: a clear refusal that names the field, and nothing half done."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Set
from typing import Any

import httpx
import pytest

from dev import edge
from sandbox.stripe.cards import CARDS
from tests.support.fuzz import Fuzz
from tests.support.stack import PASSWORD, Shop, open_shop, reason_of, wait_for

AMOUNTS_THAT_ARE_NONE = (
    *(b"9.5", b'"9.5"', b"9223372036854775808", b'"9223372036854775808"', b"-9223372036854775809", b'"1,000"'),
    *(b"true", b"[1]", b"{}", b'"x"', b'""', b'" 1"', b"1e30", b'"NaN"', b'"0x10"'),
)
GOOD: dict[str, Any] = {"amount": {"amount_minor": "100", "currency": "USD"}, "customer_id": "usr_" + "0" * 26}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": {"amount_minor": "0", "currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": "-1", "currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": "9223372036854775807", "currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": -1, "currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": 9223372036854775807, "currency": "USD"}}, "amount"),
        ({"amount": {"currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": "1"}}, "amount.currency"),
        ({"amount": {"amount_minor": "1", "currency": "XXX"}}, "amount.currency"),
        ({"amount": {"amount_minor": "1", "currency": "US$"}}, "amount.currency"),
        ({"amount": {"amount_minor": "1", "currency": "usd"}}, "amount.currency"),
        ({"amount": {"amount_minor": "1", "currency": "ZZZ"}}, "amount.currency"),
        ({"amount": None}, "amount"),
        ({"customer_id": "usr_1"}, "customer_id"),
        ({"description": "x" * 501}, "description"),
        ({"metadata": {"k" * 41: "v"}}, "metadata"),
        ({"request_id": "not-a-uuid"}, "request_id"),
    ],
)
def test_each_wrong_field_is_named(shop: Shop, change: dict[str, Any], field: str) -> None:
    response = shop.call("POST", "/v1/payments", GOOD | change, token=shop.seller_token)
    assert (response.status_code, reason_of(response)) == (400, "FIELD_INVALID")
    fields = [violation["field"] for violation in response.json()["details"][1]["field_violations"]]
    assert any(name.startswith(field) for name in fields)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"amount": 9.5}', b'{"amount": []}', b'{"amount": "1"}'),
        *(b'{"amount": {"amount_minor": %s, "currency": "USD"}}' % word for word in AMOUNTS_THAT_ARE_NONE),
        b'{"amount": {"amount_minor": "1", "currency": 1}}',
        b'{"metadata": [], "amount": {"amount_minor": "1", "currency": "USD"}}',
    ],
)
def test_what_is_not_the_right_json_is_refused(shop: Shop, body: bytes) -> None:
    response = posted(shop, body)
    assert (response.status_code, reason_of(response)) == (400, "FIELD_INVALID")


@pytest.mark.parametrize("size", [2_000_000, 10_000_000])
@pytest.mark.parametrize("path", ["/v1/payments", "/v1/users:register", "/webhooks/stripe"])
def test_a_body_that_is_too_large_is_refused(shop: Shop, size: int, path: str) -> None:
    response = posted(shop, b'{"description": "' + b"x" * size + b'"}', path)
    assert (response.status_code, reason_of(response)) == (413, "FIELD_INVALID")


def test_headers_that_are_too_large_or_not_to_be_told_apart_are_refused(shop: Shop) -> None:
    large = shop.client.get("/v1/payments", headers={"x-large": "x" * 60_000})
    assert (large.status_code, reason_of(large)) == (431, "FIELD_INVALID")
    doubtful = shop.client.get("/v1/payments", headers={"x_paymesh_principal": "e30"})
    assert (doubtful.status_code, reason_of(doubtful)) == (400, "FIELD_INVALID")


def posted(shop: Shop, body: bytes, path: str = "/v1/payments") -> httpx.Response:
    """Send a body as it is."""
    headers = {
        "authorization": f"Bearer {shop.seller_token}",
        "idempotency-key": str(uuid.uuid4()),
        "content-type": "application/json",
    }
    return shop.client.post(path, content=body, headers=headers)


@pytest.mark.parametrize("amount", [b"100", b'"100"', b"100.0", b"1e2"])
def test_a_whole_amount_may_be_a_number_or_a_text(shop: Shop, amount: bytes) -> None:
    body = b'{"customer_id": "%s", "amount": {"amount_minor": %s, "currency": "USD"}}' % (shop.user_id.encode(), amount)
    assert shop.ok(posted(shop, body))["amount"] == {"amount_minor": "100", "currency": "USD"}


@pytest.mark.parametrize(("currency", "amount"), [("KWD", 1230), ("BHD", 10), ("JPY", 50), ("USD", 50)])
def test_each_currency_is_paid_in_its_own_minor_unit(shop: Shop, currency: str, amount: int) -> None:
    payment = shop.payment(amount, currency)
    paid = shop.ok(shop.confirm(payment["id"]))
    assert paid["state"] == "SUCCEEDED"
    assert paid["amount_captured"] == {"amount_minor": str(amount), "currency": currency}
    refund = shop.call(
        "POST",
        f"/v1/payments/{payment['id']}/refunds",
        {"amount": {"amount_minor": str(amount), "currency": currency}},
        token=shop.seller_token,
    )
    assert shop.ok(refund)["amount"] == {"amount_minor": str(amount), "currency": currency}
    row = shop.platform.sql("payments", f"SELECT amount_minor, currency FROM payments WHERE id = '{payment['id']}'")
    assert row == [(amount, currency)]


def test_money_needs_a_key(shop: Shop) -> None:
    headers = {"authorization": f"Bearer {shop.seller_token}"}
    response = shop.client.post("/v1/payments", json=GOOD, headers=headers)
    assert (response.status_code, reason_of(response)) == (400, "IDEMPOTENCY_KEY_REQUIRED")


def test_a_key_belongs_to_its_request(shop: Shop) -> None:
    first = shop.call("POST", "/v1/payments", GOOD, token=shop.seller_token, key="mine")
    again = shop.call("POST", "/v1/payments", GOOD, token=shop.seller_token, key="mine")
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    other = shop.call("POST", "/v1/payments", GOOD | {"description": "x"}, token=shop.seller_token, key="mine")
    assert (other.status_code, reason_of(other)) == (400, "IDEMPOTENCY_KEY_REUSED")


def test_a_refusal_is_replayed_as_it_was(shop: Shop) -> None:
    payment = shop.payment()
    first, again = (shop.refund(payment["id"], 1, key="refused") for _ in range(2))
    assert (first.status_code, reason_of(first)) == (400, "PAYMENT_STATE_INVALID")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["idempotent-replayed"] == "true"


def test_more_than_is_left_is_not_refunded(shop: Shop) -> None:
    payment = shop.payment(1000)
    shop.ok(shop.confirm(payment["id"]))
    shop.ok(shop.refund(payment["id"], 600))
    response = shop.refund(payment["id"], 401)
    assert (response.status_code, reason_of(response)) == (400, "REFUND_EXCEEDS_AVAILABLE")
    assert response.json()["details"][0]["metadata"]["refundable_minor"] == "400"


def test_a_payment_is_confirmed_once(shop: Shop) -> None:
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    response = shop.confirm(payment["id"])
    assert (response.status_code, reason_of(response)) == (400, "PAYMENT_STATE_INVALID")


def test_somebody_elses_payment_is_not_there(shop: Shop) -> None:
    other = shop.ok(
        shop.call("POST", "/v1/merchants", {"display_name": "Rival", "country": "US", "default_currency": "USD"},
                  token=shop.customer_token)
    )  # fmt: skip
    rival = shop.ok(
        shop.call("POST", "/v1/sessions:switch_merchant", {"merchant_id": other["id"]}, token=shop.customer_token)
    )["access_token"]
    payment = shop.payment()
    response = shop.call("GET", f"/v1/payments/{payment['id']}", token=rival)
    assert (response.status_code, reason_of(response)) == (404, "RESOURCE_NOT_FOUND")


def test_an_email_is_registered_once_and_a_wrong_password_tells_nothing(shop: Shop) -> None:
    person = {"email": "twin@example.com", "password": PASSWORD, "display_name": "Twin"}
    shop.ok(shop.call("POST", "/v1/users:register", person))
    taken = shop.call("POST", "/v1/users:register", person | {"email": "TWIN@example.com"})
    assert (taken.status_code, reason_of(taken)) == (409, "REFERENCE_TAKEN")
    answers = []
    for email in ("twin@example.com", "nobody@example.com"):
        began = time.monotonic()
        answer = shop.call("POST", "/v1/sessions", {"email": email, "password": "wrong horse battery"})
        answers.append((answer.status_code, answer.json()["message"], time.monotonic() - began))
    assert answers[0][:2] == answers[1][:2] == (401, "The email address and the password do not match an account.")
    assert answers[1][2] > answers[0][2] / 3  # nobody's password is checked too


def unsigned(claims: dict[str, Any]) -> str:
    """Return a JWT with alg=none."""
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer x",
        "Bearer " + unsigned({"iss": "x", "sub": "usr_1", "exp": 9999999999}),
        "bEaReR pm_sk_test_none",
        "Bearer pm_",
        "Basic pm_sk_test_none",
        "pm_sk_test_none",
    ],
)
def test_no_way_in_without_a_credential_that_holds(shop: Shop, credential: str) -> None:
    claims = {"typ": "member", "sub": "usr_1", "merchant_id": shop.merchant_id, "scope": "payments:read balances:read"}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    headers = {"x-paymesh-principal": forged, "x-paymesh-on-behalf-of": forged} | (
        {"authorization": credential} if credential else {}
    )
    for path in ("/v1/payments", "/v1/balances", f"/v1/merchants/{shop.merchant_id}"):
        response = shop.client.get(path, headers=headers)
        assert (response.status_code, reason_of(response)) == (401, "CREDENTIAL_INVALID")


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/paymesh.wallets.v1.LedgerService/PostFact"])
def test_what_is_not_there_is_not_found(shop: Shop, path: str) -> None:
    response = shop.call("GET", path, token=shop.seller_token)
    assert response.status_code == 404


@pytest.mark.parametrize("signature", ["", "t=1,v1=00", f"t={int(time.time())},v1={'0' * 64}"])
def test_a_webhook_that_stripe_did_not_sign_is_refused(shop: Shop, signature: str) -> None:
    headers = {"stripe-signature": signature} if signature else {}
    response = shop.client.post("/webhooks/stripe", content=b'{"id": "evt_forged"}', headers=headers)
    assert (response.status_code, reason_of(response)) == (401, "CREDENTIAL_INVALID")
    assert shop.platform.sql("payments", "SELECT 1 FROM stripe_events WHERE id = 'evt_forged'") == []


@pytest.mark.parametrize("path", ["/v1/payments", "/v1/nothing", "/healthz", "/.well-known/jwks.json"])
def test_headers_of_every_answer(shop: Shop, path: str) -> None:
    headers = shop.call("GET", path, token=shop.seller_token).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "max-age" in headers["strict-transport-security"]
    assert headers["x-request-id"]
    assert not [name for name in headers if name.startswith(("grpc-", "x-envoy", "server"))]


def test_an_api_key_is_never_mistaken_for_something_else(shop: Shop) -> None:
    body = {"display_name": "k", "scopes": ["balances:read"]}
    key = shop.ok(shop.call("POST", "/v1/api_keys", body, token=shop.seller_token))["secret"]
    # Enough calls to meet request ids of the edge's own that look like card numbers.
    assert {shop.call("GET", "/v1/balances", token=key).status_code for _ in range(200)} == {200}


def text_fields() -> list[tuple[str, str, str]]:
    """Return (verb, path, field) of every text field of every request body that the edge takes."""
    found = []
    for method in edge.methods():
        rule = edge.route_of(method)
        if rule is None or rule[0] not in ("post", "patch"):
            continue
        for field in method.input_type.fields:
            inside = "{" + field.name + "}" in rule[1]
            hashed = field.name in ("password", "current_password", "new_password")
            if field.type == field.TYPE_STRING and not field.is_repeated and not inside and not hashed:
                found.append((rule[0].upper(), rule[1], field.name))
    return found


@pytest.mark.parametrize(("verb", "path", "field"), text_fields())
def test_no_card_number_gets_in_by_any_field(shop: Shop, verb: str, path: str, field: str) -> None:
    number = CARDS[0].number
    tokens = [shop.customer_token, shop.seller_token, ""]
    answers = [shop.call(verb, filled(path, shop), {field: number}, token=token or None) for token in tokens]
    assert {answer.status_code for answer in answers} <= {400, 401, 403, 404, 429}
    assert all(number not in answer.text for answer in answers)


@pytest.mark.parametrize(("verb", "path", "field"), text_fields())
def test_no_character_that_cannot_be_stored_gets_in_by_any_field(shop: Shop, verb: str, path: str, field: str) -> None:
    tokens = [shop.customer_token, shop.seller_token, ""]
    method = next(one for one in edge.methods() if edge.route_of(one) == (verb.lower(), path))
    body = Fuzz(0, {"customer_id": shop.user_id}).plausible(method) | {field: "a\0b"}
    answers = [shop.call(verb, filled(path, shop), body, token=token or None) for token in tokens]
    assert {answer.status_code for answer in answers} <= {400, 401, 403, 429}, [answer.text for answer in answers]


def test_a_field_with_such_a_character_is_named(shop: Shop) -> None:
    answer = shop.call("PATCH", "/v1/users/me", {"display_name": "a\0b"}, token=shop.customer_token)
    violations = answer.json()["details"][1]["field_violations"]
    assert [(one["field"], "NUL" in one["description"]) for one in violations] == [("display_name", True)]


def filled(path: str, shop: Shop) -> str:
    """Return a path with ids of the right shape that belong to nobody."""
    nobody = "0" * 26
    values = {
        "merchant_id": shop.merchant_id,
        "payment_id": f"pay_{nobody}",
        "refund_id": f"ref_{nobody}",
        "dispute_id": f"dsp_{nobody}",
        "payment_method_id": f"pm_{nobody}",
        "session_id": f"ses_{nobody}",
        "user_id": f"usr_{nobody}",
        "invitation_id": f"inv_{nobody}",
        "api_key_id": f"key_{nobody}",
        "wallet_id": f"wal_{nobody}",
        "top_up_id": f"top_{nobody}",
        "setup_intent_id": f"seti_{nobody}",
        "mandate_id": f"man_{nobody}",
        "reconciliation_item_id": f"rec_{nobody}",
    }
    return re.sub(r"{(\w+)}", lambda found: values[found[1]], path)


def routes() -> list[tuple[str, str]]:
    """Return (verb, path) of every route of the edge."""
    rules = [edge.route_of(method) for method in edge.methods()]
    return sorted(
        {(rule[0].upper(), rule[1]) for rule in rules if rule is not None} | {("GET", "/healthz"), ("GET", "/no")}
    )


ALWAYS = {name for name, _ in edge.SECURITY_HEADERS} | {"date", "x-request-id"}
SOMETIMES = {
    *("content-type", "content-length", "transfer-encoding", "connection", "vary", "www-authenticate"),
    *("idempotent-replayed", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
}
"""The snapshot: a header that is in neither set is one that somebody added, or that leaks."""
KINDS = ("application/json", "text/html", "application/jwk-set+json")


@pytest.fixture(scope="module")
def guest(shop: Shop) -> Shop:
    """Return somebody whose session may end: one of the routes ends it."""
    return open_shop(shop.platform, shop.client)


@pytest.mark.parametrize(("verb", "path"), routes())
def test_every_answer_of_every_route_has_the_same_headers(guest: Shop, verb: str, path: str) -> None:
    place, codes = filled(path, guest), set()
    well = {"idempotency-key": str(uuid.uuid4()), "content-type": "application/json"}
    body = b"{}" if verb in ("POST", "PATCH", "PUT") else None
    for token in (None, guest.customer_token, guest.seller_token, "forged", "pm_sk_test_forged"):
        headers = well | ({"authorization": f"Bearer {token}"} if token else {})
        codes.add(looked_at(guest.client.request(verb, place, content=body, headers=headers)))
        # And its errors: another verb, a body and a query that cannot be read, a header that the edge refuses.
        looked_at(guest.client.request("PROPFIND", place, headers=headers))
        looked_at(guest.client.request(verb, place + "?no_such_field=1", content=b"{", headers=headers))
        # Such a request is refused before it has an id.
        doubtful = guest.client.request(verb, place, content=body, headers=headers | {"x_doubtful": "1"})
        looked_at(doubtful, missing={"x-request-id"})
    assert 500 not in codes


def looked_at(answer: httpx.Response, missing: Set[str] = frozenset()) -> int:
    """Check the headers of an answer, and return its code."""
    names = set(answer.headers)
    assert ALWAYS - names == missing, answer.text
    assert names - ALWAYS - SOMETIMES == set()
    for name, value in edge.SECURITY_HEADERS:
        assert answer.headers[name] == value, name
    assert answer.headers["content-type"].startswith(KINDS)
    return answer.status_code


def foreign_ids() -> list[tuple[str, str]]:
    """Return (verb, path) of every route whose path names a resource, but those that are for everybody (the way back from the bank,
    which tells nothing)."""
    public = {edge.route_of(method) for method in edge.methods() if edge.is_public(method)}
    return [(verb, path) for verb, path in routes() if "{" in path and (verb.lower(), path) not in public]


@pytest.mark.parametrize(("verb", "path"), foreign_ids())
def test_what_belongs_to_somebody_else_is_not_there(shop: Shop, verb: str, path: str) -> None:
    theirs = somebody_elses(shop)
    place = re.sub(r"{(\w+)}", lambda found: theirs[found[1]], path)
    body: dict[str, Any] = {"display_name": "Mine", "role": "viewer", "email": "a@b.example"}
    body |= {"payment_method_id": theirs["payment_method_id"], "amount": {"amount_minor": "1", "currency": "USD"}}
    body |= {"stripe_payment_method_id": "pm_card_visa"} if "setup_intents" in path else {}
    fields = {
        field
        for method in edge.methods()
        if edge.route_of(method) == (verb.lower(), path)
        for field in fields_of(method)
    }
    fields -= set(re.findall(r"{(\w+)}", path))
    given = {name: value for name, value in body.items() if name in fields} if verb in ("POST", "PATCH") else None
    for token in (shop.customer_token, shop.seller_token):
        answer = shop.call(verb, place, given, token=token)
        assert answer.status_code in (403, 404), answer.text
        absent = shop.call(verb, filled(path, shop).replace(shop.merchant_id, f"mer_{'0' * 26}"), given, token=token)
        assert absent.status_code == answer.status_code  # its existence is not told either


def fields_of(method: Any) -> set[str]:
    """Return the names of a request's fields."""
    return {field.name for field in method.input_type.fields}


def somebody_elses(shop: Shop) -> dict[str, str]:
    """Return real ids of another merchant and another customer, by the name that paths use."""
    known = getattr(somebody_elses, "known", None)
    if known is None:
        known = made_by_another(shop)
        somebody_elses.known = known  # type: ignore[attr-defined]  # made once for all routes
    found: dict[str, str] = known
    return found


def made_by_another(shop: Shop) -> dict[str, str]:
    """Make one of everything, as somebody else."""
    other = open_shop(shop.platform, shop.client)
    token, seller, user_id, merchant_id = other.customer_token, other.seller_token, other.user_id, other.merchant_id
    payment = other.payment()
    other.ok(other.confirm(payment["id"]))
    refund = other.ok(other.refund(payment["id"], 1))
    key = other.ok(other.call("POST", "/v1/api_keys", {"display_name": "k", "scopes": ["payments:read"]}, token=seller))
    invited = {"email": "third@example.com", "role": "viewer"}
    members = f"/v1/merchants/{merchant_id}/members"
    invitation = other.ok(other.call("POST", members, invited, token=seller))
    session = other.ok(other.call("GET", "/v1/sessions", token=token))["sessions"][0]
    wallet = other.ok(other.call("POST", "/v1/wallets", {"currency": "USD"}, token=token))
    ten = {"amount": {"amount_minor": "10", "currency": "USD"}, "payment_method_id": other.method_id}
    top_up = other.ok(other.call("POST", f"/v1/wallets/{wallet['id']}/top_ups", ten, token=token))
    asked = other.ok(other.call("POST", "/v1/setup_intents", {"customer_id": user_id}, token=seller))
    saved = {"stripe_payment_method_id": "pm_card_visa"}
    setup = other.ok(other.call("POST", f"/v1/setup_intents/{asked['id']}:confirm", saved, token=token))
    return {
        "setup_intent_id": setup["id"],
        "mandate_id": setup["mandate_id"],
        "merchant_id": merchant_id,
        "payment_id": payment["id"],
        "refund_id": refund["id"],
        "dispute_id": dispute_of(other)["id"],
        "payment_method_id": other.method_id,
        "session_id": session["id"],
        "user_id": user_id,
        "invitation_id": invitation["id"],
        "api_key_id": key["api_key"]["id"],
        "wallet_id": wallet["id"],
        "top_up_id": top_up["id"],
        "reconciliation_item_id": item_of(other, payment["id"]),
    }


def item_of(shop: Shop, payment_id: str) -> str:
    """Return the reconciliation item of a payment's capture, once there is one."""
    statement = f"SELECT id FROM reconciliation_items WHERE payment_id = '{payment_id}' AND kind = 'CAPTURE'"
    wait_for(lambda: bool(shop.platform.sql("payments", statement)), "the reconciliation item")
    identifier: str = shop.platform.sql("payments", statement)[0][0]
    return identifier


def dispute_of(shop: Shop) -> dict[str, Any]:
    """Pay with a card whose holder disputes it, and return the dispute."""
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"], method_id=shop.card("pm_card_createDispute")["id"]))
    path = f"/v1/disputes?payment_id={payment['id']}"

    def told() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = shop.ok(shop.call("GET", path, token=shop.seller_token))["disputes"]
        return found

    wait_for(lambda: len(told()) == 1, "the dispute")
    return told()[0]
