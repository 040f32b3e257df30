"""No input makes a server fail: for every REST route, requests with something wrong in them."""

from __future__ import annotations

import time
import uuid

import httpx
import pytest

from tests.support.fuzz import Attack, Fuzz
from tests.support.stack import Shop, open_shop

ROUNDS = 9
DEFINED = (501, 503)


@pytest.mark.parametrize("seed", [20261125])
def test_whatever_is_sent_is_answered_with_one_reason_and_never_a_500(shop: Shop, seed: int) -> None:
    # A user and merchant of its own: some of the requests are right, and end sessions or rename things.
    victim = open_shop(shop.platform, shop.client)
    ids = {"merchant_id": victim.merchant_id, "payment_id": victim.payment()["id"], "customer_id": victim.user_id}
    ids |= {"user_id": victim.user_id, "payment_method_id": victim.method_id}
    began, wrong, asked = time.monotonic(), [], 0
    for number, attack in enumerate(Fuzz(seed, ids).attacks(ROUNDS)):
        token = (victim.seller_token, victim.customer_token, "")[number % 3]
        answer = send(victim, attack, token)
        asked += 1
        if complaint := complaint_about(answer):
            wrong.append(f"{complaint}: {attack} -> {answer.status_code} {answer.text[:300]}")
    print(f"{asked} requests in {time.monotonic() - began:.1f} s")
    assert wrong == [], "\n".join(wrong)
    assert asked > 300


def send(shop: Shop, attack: Attack, token: str) -> httpx.Response:
    """Send it."""
    headers = {"content-type": attack.content_type, "idempotency-key": str(uuid.uuid4())}
    if token:
        headers["authorization"] = f"Bearer {token}"
    return shop.client.request(attack.verb, attack.path, content=attack.body, headers=headers)


def complaint_about(answer: httpx.Response) -> str:
    """Return what is wrong about an answer, or ""."""
    if answer.status_code >= 500 and answer.status_code not in DEFINED:
        return "a fault"
    if answer.status_code < 400 or answer.request.method == "HEAD":
        return ""
    try:
        document = answer.json()
        infos = [one for one in document["details"] if one["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"]
    except (ValueError, KeyError, TypeError):
        return "no google.rpc.Status"
    if [info["domain"] for info in infos] != ["paymesh.dev"] or not infos[0]["reason"]:
        return "not one ErrorInfo of ours"
    return "" if document["code"] else "no code"
