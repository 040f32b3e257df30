"""What Stripe tells and what only looks like it: taken once, refused by reason, found where it never arrived, replayed by hand."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from tests.e2e.test_certainty import charged, intent_of
from tests.support.stack import Platform, Shop, wait_for


def counted(platform: Platform, metric: str, **labels: str) -> float:
    """Return a counter of the payments server."""
    page = httpx.get(f"http://127.0.0.1:{platform.state['ports']['metrics_payments']}/metrics").text
    want = ",".join(f'{name}="{value}"' for name, value in labels.items())
    line = next((line for line in page.splitlines() if line.startswith(f"{metric}{{{want}}} ")), "0 0")
    return float(line.split()[-1])


def secret_of(platform: Platform) -> str:
    """Return the endpoint's signing secret."""
    return Path(platform.state["secrets_dir"], "stripe_webhook").read_text()


def post(shop: Shop, body: bytes, secret: str, *, shift: int = 0) -> httpx.Response:
    """Post a webhook as Stripe does, or as somebody else would."""
    at = int(time.time()) + shift
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at)
    return shop.client.post("/webhooks/stripe", content=body, headers={"stripe-signature": header})


def news() -> bytes:
    """Return an event about something that Paymesh has no use for."""
    subject = {"object": "customer", "id": "cus_1"}
    event = {
        "id": f"evt_{uuid.uuid4().hex}", "object": "event", "type": "customer.updated", "created": int(time.time()),
        "data": {"object": subject},
    }  # fmt: skip
    return json.dumps(event).encode()


def state_of(shop: Shop, event_id: str) -> list[Any]:
    """Return what became of an event."""
    return shop.platform.sql("payments", f"SELECT state FROM stripe_events WHERE id = '{event_id}'")


def test_what_stripe_did_not_sign_just_now_is_refused_and_counted_by_reason(shop: Shop) -> None:
    platform, secret, body = shop.platform, secret_of(shop.platform), news()
    event_id = json.loads(body)["id"]
    tries = {
        "forged": lambda: post(shop, body, "whsec_of_somebody_else"),
        "stale": lambda: post(shop, body, secret, shift=-301),
        "early": lambda: post(shop, body, secret, shift=330),
        "missing": lambda: shop.client.post("/webhooks/stripe", content=body),
        "malformed": lambda: shop.client.post("/webhooks/stripe", content=body, headers={"stripe-signature": "x"}),
    }
    metric = "paymesh_stripe_webhooks_refused_total"
    for why, attempt in tries.items():
        before = counted(platform, metric, why=why)
        assert attempt().status_code == 401, why
        assert counted(platform, metric, why=why) == before + 1, why
    assert state_of(shop, event_id) == []
    # The true one, and a replay of it while its signature is fresh: stored once.
    assert [post(shop, body, secret).status_code for _ in range(2)] == [200, 200]
    assert len(state_of(shop, event_id)) == 1
    wait_for(lambda: state_of(shop, event_id) == [("APPLIED",)], "the worker")


@pytest.mark.parametrize("kind", ["forge", "stale"])
def test_a_bad_delivery_changes_nothing_and_the_true_one_after_it_does(shop: Shop, kind: str) -> None:
    shop.platform.sandbox("webhooks/faults", type="payment_intent.succeeded", kind=kind, times=1)
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="lose_response", times=3)
    payment = shop.payment()
    assert shop.ok(shop.confirm(payment["id"]))["certainty"] == "UNKNOWN"
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the retry of the webhook")


def test_what_never_arrives_is_found_by_looking_through_stripes_list(shop: Shop) -> None:
    shop.platform.cli("webhooks", "poll")
    shop.platform.sandbox("webhooks/faults", type=".*", kind="drop", times=50)
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="lose_response", times=3)
    payment = shop.payment()
    lost = shop.ok(shop.confirm(payment["id"]))
    assert (lost["state"], lost["certainty"]) == ("PROCESSING", "UNKNOWN")
    polled = shop.platform.cli("webhooks", "poll")
    # The platform's own poll, every three minutes, may have been a moment earlier: then the one by hand finds nothing new.
    intent = intent_of(shop.platform, payment["id"])
    sources = shop.platform.sql(
        "payments", f"SELECT DISTINCT source FROM stripe_events WHERE payment_intent_id = '{intent}'"
    )
    httpx.delete(
        f"http://127.0.0.1:{shop.platform.state['ports']['stripe_sandbox']}/_sandbox/faults"
    ).raise_for_status()
    assert (polled.returncode, sources) == (0, [("POLL",)]), polled.stderr
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "what was found")
    assert charged(shop, payment["id"]) == 1
    assert "poll" in shop.platform.cli("webhooks", "list").stdout
    assert shop.platform.cli("webhooks", "poll").stdout.startswith("0 ")


def test_dead_events_are_listed_shown_and_replayed_by_hand(shop: Shop) -> None:
    cli, platform = shop.platform.cli, shop.platform
    bodies = [news() for _ in range(2)]
    ids = [json.loads(body)["id"] for body in bodies]
    for body in bodies:
        assert post(shop, body, secret_of(platform)).status_code == 200
    for event_id in ids:
        wait_for(lambda: state_of(shop, event_id) == [("APPLIED",)], "the worker")  # noqa: B023
        # As its last try leaves it.
        platform.sql(
            "payments", f"UPDATE stripe_events SET state = 'DEAD', error = 'UnknownObject: x' WHERE id = '{event_id}'"
        )
    dead = cli("webhooks", "list", "--state", "dead").stdout
    assert all(event_id in dead for event_id in ids)
    assert "UnknownObject: x" in dead
    assert bodies[0].decode() in cli("webhooks", "show", ids[0]).stdout
    assert cli("webhooks", "replay", ids[0]).stdout.startswith("1 ")
    wait_for(lambda: state_of(shop, ids[0]) == [("APPLIED",)], "the replay")
    assert state_of(shop, ids[1]) == [("DEAD",)]
    assert cli("webhooks", "replay", "--dead").returncode == 0
    wait_for(lambda: state_of(shop, ids[1]) == [("APPLIED",)], "the replay")
    unknown = cli("webhooks", "replay", "evt_nobody")
    assert (unknown.returncode, "RESOURCE_NOT_FOUND" in unknown.stderr) == (1, True)
    assert cli("webhooks", "replay").returncode == 2
