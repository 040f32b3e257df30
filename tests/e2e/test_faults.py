"""The database restarts in the middle of traffic: the platform comes back by itself, nothing is lost, nothing is doubled."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import httpx
import pytest

from tests.support.stack import Platform, Shop, insist, wait_for

BUYERS = 4
PURCHASES = 12


@dataclass
class Traffic:
    """What buyers did."""

    shop: Shop
    codes: list[int] = field(default_factory=list)
    paid: list[str] = field(default_factory=list)
    warm: threading.Event = field(default_factory=threading.Event)

    def buy(self, _: int) -> None:
        """Buy several times, each step under its own key for as often as it takes."""
        platform = self.shop.platform
        with httpx.Client(base_url=platform.edge, verify=platform.context, timeout=20) as client:
            shop = replace(self.shop, client=client)
            for _ in range(PURCHASES):
                keys = [str(uuid.uuid4()) for _ in range(2)]
                body = {"amount": {"amount_minor": "700", "currency": "USD"}, "customer_id": shop.user_id}
                path, seller = "/v1/payments", shop.seller_token
                made = insist(lambda: self._note(shop.call("POST", path, body, token=seller, key=keys[0])))  # noqa: B023
                payment_id = shop.ok(made)["id"]
                shop.ok(insist(lambda: self._note(shop.confirm(payment_id, key=keys[1]))))  # noqa: B023
                self.paid.append(payment_id)
                self.warm.set()

    def _note(self, answer: httpx.Response) -> httpx.Response:
        self.codes.append(answer.status_code)
        return answer


def restart_postgres(platform: Platform, how: signal.Signals) -> None:
    """End the database server; the stack starts it again."""
    pid = json.loads((platform.folder / "up.json").read_text())["pids"]["postgres"]
    os.kill(pid, how)
    wait_for(lambda: json.loads((platform.folder / "up.json").read_text())["pids"]["postgres"] != pid, "the restart")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["in good order", "as in a crash"])
def test_postgres_restarts_in_the_middle_of_traffic(shop: Shop, how: signal.Signals) -> None:
    count = f"SELECT count(*) FROM payments WHERE owner_id = '{shop.merchant_id}'"
    before = shop.platform.sql("payments", count)[0][0]
    traffic = Traffic(shop)
    with ThreadPoolExecutor(BUYERS) as pool:
        buyers = [pool.submit(traffic.buy, number) for number in range(BUYERS)]
        assert traffic.warm.wait(20)
        restart_postgres(shop.platform, how)
        for buyer in buyers:
            buyer.result()
    assert 500 not in traffic.codes
    assert 503 in traffic.codes  # the restart was met, and told as what may be tried again
    assert len(set(traffic.paid)) == BUYERS * PURCHASES
    assert shop.platform.sql("payments", count) == [(before + BUYERS * PURCHASES,)]
    for payment_id in traffic.paid:
        payment = shop.read(payment_id)
        assert (payment["state"], payment["amount_captured"]["amount_minor"]) == ("SUCCEEDED", "700")
    charged(shop, traffic.paid)
    shop.quiet()
    proof = shop.platform.audit()
    assert proof.returncode == 0, proof.stdout


def charged(shop: Shop, payments: list[str]) -> None:
    """Check that Stripe charged once for each payment."""
    names = ", ".join(f"'{payment_id}'" for payment_id in payments)
    rows = shop.platform.sql("payments", f"SELECT stripe_payment_intent_id FROM payments WHERE id IN ({names})")
    paid = shop.platform.paid_charges()
    assert [paid.get(intent, 0) for (intent,) in rows] == [1] * len(payments)


def test_duplicates_after_a_restart_of_postgres_still_charge_once(shop: Shop) -> None:
    restart_postgres(shop.platform, signal.SIGINT)
    shop.ok(insist(lambda: shop.call("GET", "/v1/payments?page_size=1", token=shop.seller_token)))
    payment = shop.payment()
    key = str(uuid.uuid4())

    def confirm(_: int) -> httpx.Response:
        with httpx.Client(base_url=shop.platform.edge, verify=shop.platform.context, timeout=20) as client:
            return replace(shop, client=client).confirm(payment["id"], key=key)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(confirm, range(64)))
    assert {answer.status_code for answer in answers} <= {200, 409, 429}
    settled = insist(lambda: shop.confirm(payment["id"], key=key))
    assert {answer.content for answer in answers if answer.status_code == 200} <= {settled.content}
    charged(shop, [payment["id"]])
