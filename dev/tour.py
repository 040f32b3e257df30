"""One purchase through the edge, each call shown as lines that work as they are pasted."""

from __future__ import annotations

import json
import shlex
import ssl
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx


class TourFailed(Exception):
    """A call of the tour was not answered as it should be."""


class Guide:
    """Makes calls and shows them."""

    def __init__(self, edge_url: str, ca_file: Path) -> None:
        self._edge_url = edge_url
        self._ca_file = ca_file
        self._client = httpx.Client(
            base_url=edge_url, verify=ssl.create_default_context(cafile=str(ca_file)), timeout=20
        )

    def call(
        self, title: str, method: str, path: str, body: dict[str, Any] | None = None, *, token: str = "", rpc: str = ""
    ) -> dict[str, Any]:
        """Call over REST, show the line for curl and, where `rpc` is given, the one for gRPC."""
        key = str(uuid.uuid4())
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if method == "POST":
            headers["idempotency-key"] = key
        answer = self._client.request(method, path, json=body, headers=headers)
        self._show(title, method, path, body, headers, rpc)
        if answer.is_error:
            raise TourFailed(f"{method} {path}: {answer.status_code} {answer.text}")
        document: dict[str, Any] = answer.json()
        return document

    def _show(
        self, title: str, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str], rpc: str
    ) -> None:
        print(f"\n# {title}")
        words = ["curl", "--http1.1", "-sS", "--cacert", str(self._ca_file), "-X", method, f"{self._edge_url}{path}"]
        for name, value in headers.items():
            words += ["-H", f"{name}: {value}"]
        if body is not None:
            words += ["-H", "content-type: application/json", "-d", json.dumps(body)]
        print(shlex.join(words))
        if rpc:
            words = [".venv/bin/buf", "curl", "--cacert", str(self._ca_file), "--protocol", "grpc"]
            words += ["--schema", "generated/descriptors/paymesh.binpb"]
            for name, value in headers.items():
                words += ["-H", f"{name}: {value}"]
            words += ["-d", json.dumps(body or {}), f"{self._edge_url}/{rpc}"]
            print(shlex.join(words))
        sys.stdout.flush()


def tour(edge_url: str, ca_file: Path) -> float:
    """Register, log in, create a merchant, save a card, pay, refund in part, read the balances. Returns the (monotonic) second
    at which the payment was captured. Raises TourFailed."""
    guide = Guide(edge_url, ca_file)
    email, password = f"ada.{uuid.uuid4().hex[:8]}@example.com", uuid.uuid4().hex
    person = {"email": email, "password": password}
    guide.call("Register", "POST", "/v1/users:register", {**person, "display_name": "Ada"})
    login = guide.call(
        "Log in", "POST", "/v1/sessions", person, rpc="paymesh.identity.v1.IdentityService/CreateSession"
    )
    customer, user_id = login["access_token"], login["user"]["id"]
    shop = {"display_name": "Ada's Books", "country": "US", "default_currency": "USD"}
    merchant = guide.call("Create a merchant", "POST", "/v1/merchants", shop, token=customer)
    switch = {"merchant_id": merchant["id"]}
    seller = guide.call("Act for it", "POST", "/v1/sessions:switch_merchant", switch, token=customer)["access_token"]
    card = {"stripe_payment_method_id": "pm_card_visa"}
    method = guide.call("Save a test card, as the customer", "POST", "/v1/payment_methods", card, token=customer)
    order = {"amount": {"amount_minor": "2500", "currency": "USD"}, "customer_id": user_id, "description": "Two books"}
    payment = guide.call("Ask for 25 dollars, as the merchant", "POST", "/v1/payments", order, token=seller)
    path = f"/v1/payments/{payment['id']}"
    use = {"payment_method_id": method["id"]}
    paid = guide.call("Confirm, as the customer", "POST", f"{path}:confirm", use, token=customer)
    if paid["state"] != "SUCCEEDED":
        raise TourFailed(f"the payment is in {paid['state']}")
    captured = time.monotonic()
    part = {"amount": {"amount_minor": "500", "currency": "USD"}}
    guide.call("Refund 5 dollars", "POST", f"{path}/refunds", part, token=seller)
    guide.call("Read the payment", "GET", path, token=seller)
    rpc = "paymesh.wallets.v1.WalletService/GetBalances"
    balances = guide.call("Read the balances", "GET", "/v1/balances", token=seller, rpc=rpc)
    print(json.dumps(balances, indent=2))
    return captured
