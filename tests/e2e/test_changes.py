"""What of a payment can be changed, and until when."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.stack import Shop, reason_of

TOMORROW = "2099-01-01T00:00:00Z"


def change(shop: Shop, payment_id: str, body: dict[str, Any], *, token: str | None = None) -> httpx.Response:
    """Change a payment as the merchant."""
    return shop.call("PATCH", f"/v1/payments/{payment_id}", body, token=token or shop.seller_token)


def field_of(response: httpx.Response) -> str:
    """Return the field that a refusal names."""
    assert reason_of(response) in ("FIELD_INVALID", "PAYMENT_STATE_INVALID"), response.text
    found = next(detail for detail in response.json()["details"] if "field_violations" in detail)
    field: str = found["field_violations"][0]["field"]
    return field


def test_words_and_notes_change_in_every_state_and_each_change_is_a_version(shop: Shop) -> None:
    payment = shop.payment(description="Two books", metadata={"order": "1", "desk": "a"})
    first = shop.ok(change(shop, payment["id"], {"description": "Three books", "metadata": {"order": "2"}}))
    assert (first["description"], first["metadata"]) == ("Three books", {"order": "2"})
    assert int(first["resource_version"]) == int(payment["resource_version"]) + 1
    shop.ok(shop.confirm(payment["id"]))
    paid = shop.read(payment["id"])
    late = shop.ok(change(shop, payment["id"], {"update_mask": "metadata,description", "metadata": {"shipped": "yes"}}))
    assert (late["state"], late["metadata"], late["description"]) == ("SUCCEEDED", {"shipped": "yes"}, "")
    assert int(late["resource_version"]) == int(paid["resource_version"]) + 1
    for body in ({"metadata": {"shipped": "yes"}}, {}):
        same = shop.ok(change(shop, payment["id"], body))
        assert same["resource_version"] == late["resource_version"]  # nothing changed, so nothing is told
    told = "SELECT count(*) FROM (SELECT subject, version, type FROM outbox UNION ALL SELECT subject, version, type"
    rows = shop.platform.sql(
        "payments", f"{told} FROM outbox_archive) o WHERE subject = '{payment['id']}' AND type = 'payment.updated'"
    )
    assert rows[0][0] >= 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"update_mask": "amount"}, "update_mask"),
        ({"update_mask": "metadata.order"}, "update_mask"),
        ({"description": "x" * 501}, "description"),
        ({"statement_descriptor_suffix": "12"}, "statement_descriptor_suffix"),
        ({"capture_before": TOMORROW}, "capture_before"),  # the payment is captured with its confirm
        ({"etag": "1", "description": "x"}, "etag"),
    ],
)
def test_what_cannot_be_asked_for_is_named(shop: Shop, body: dict[str, Any], field: str) -> None:
    payment = shop.payment()
    assert field_of(change(shop, payment["id"], body)).startswith(field)
    assert shop.read(payment["id"])["resource_version"] == payment["resource_version"]


def test_what_cannot_change_any_more_is_refused_by_name(shop: Shop) -> None:
    payment = shop.payment(capture_method="MANUAL", capture_before="2098-01-01T00:00:00Z")
    changed = shop.ok(change(shop, payment["id"], {"statement_descriptor_suffix": "Books", "capture_before": TOMORROW}))
    assert (changed["statement_descriptor_suffix"], changed["capture_before"]) == ("Books", TOMORROW)
    held = shop.ok(shop.confirm(payment["id"]))
    assert held["state"] == "REQUIRES_CAPTURE"
    refused = change(shop, payment["id"], {"statement_descriptor_suffix": "Other", "description": "Other"})
    assert (reason_of(refused), field_of(refused)) == ("PAYMENT_STATE_INVALID", "statement_descriptor_suffix")
    assert refused.json()["details"][0]["metadata"]["field"] == "statement_descriptor_suffix"
    assert shop.read(payment["id"])["description"] == ""  # all or nothing
    cleared = shop.ok(change(shop, payment["id"], {"update_mask": "capture_before"}))
    assert cleared.get("capture_before") is None
    past = change(shop, payment["id"], {"capture_before": "2020-01-01T00:00:00Z"})
    assert (reason_of(past), field_of(past)) == ("FIELD_INVALID", "capture_before")
    shop.ok(shop.capture(payment["id"]))
    late = change(shop, payment["id"], {"capture_before": TOMORROW})
    assert (reason_of(late), field_of(late)) == ("PAYMENT_STATE_INVALID", "capture_before")


def test_only_the_version_that_was_seen_changes_and_one_of_many_writers_wins(shop: Shop) -> None:
    payment = shop.payment()

    def write(number: int) -> httpx.Response:
        return change(shop, payment["id"], {"description": f"version {number}", "etag": payment["etag"]})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(8)))
    assert sorted({answer.status_code for answer in answers}) == [200, 409]
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert {reason_of(answer) for answer in answers if answer.status_code == 409} <= {"ETAG_MISMATCH"}
    won = next(answer for answer in answers if answer.status_code == 200).json()
    assert shop.read(payment["id"])["description"] == won["description"]
    key = str(uuid.uuid4())
    headers = {"authorization": f"Bearer {shop.seller_token}", "idempotency-key": key}
    path = f"/v1/payments/{payment['id']}"
    once, again = (shop.client.patch(path, json={"description": "once"}, headers=headers) for _ in range(2))
    assert once.content == again.content
    assert again.headers["idempotent-replayed"] == "true"


def test_nobody_else_changes_a_payment(shop: Shop) -> None:
    payment = shop.payment()
    assert change(shop, payment["id"], {"description": "x"}, token=shop.customer_token).status_code == 403
    assert reason_of(change(shop, "pay_" + "0" * 26, {"description": "x"})) == "RESOURCE_NOT_FOUND"
