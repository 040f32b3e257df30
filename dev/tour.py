"""Two purchases through the edge, from a card and from a wallet, each call shown as lines that work as they are pasted."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import ssl
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from dev.paths import ROOT

CALL_SECONDS: Final = 20.0
SETTLE_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1
PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


IDENTITY, PAYMENTS, WALLETS = (
    "paymesh.identity.v1.IdentityService",
    "paymesh.payments.v1.PaymentService",
    "paymesh.wallets.v1.WalletService",
)


class TourFailed(Exception):
    """A call of the tour was not answered as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Who trades: a customer with a card, and the seller, by their tokens."""

    customer: str
    seller: str
    user_id: str
    method_id: str


class Guide:
    """Makes calls and shows them."""

    def __init__(self, client: httpx.AsyncClient, edge_url: str, ca_file: Path) -> None:
        self._client = client
        self._edge_url = edge_url
        self._ca_file = ca_file

    async def call(
        self,
        title: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str = "",
        rpc: str = "",
        message: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call over REST, show the line for curl and, where `rpc` is given, the one for gRPC: with `message` where the path holds
        fields of the request. Raises TourFailed."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if method == "POST":
            headers["idempotency-key"] = str(uuid.uuid4())
        print(f"\n# {title}", flush=True)
        print(curl(self._edge_url, self._ca_file, method, path, headers, body))
        if rpc:
            print(buf_curl(self._edge_url, self._ca_file, rpc, headers, message or body))
        began = time.monotonic()
        document = await self._ask(method, path, headers, body)
        told = " ".join(str(document[name]) for name in ("id", "state") if name in document)
        print(f"# answered in {(time.monotonic() - began) * 1000:.0f} ms{': ' + told if told else ''}", flush=True)
        return document

    async def until(self, path: str, state: str, *, token: str) -> None:
        """Read a resource until it is in a state, within a bound. Raises TourFailed."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (found := await self._ask("GET", path, {"authorization": f"Bearer {token}"}, None))["state"] != state:
            if time.monotonic() > deadline:
                raise TourFailed(f"{path} is {found['state']} after {SETTLE_SECONDS:.0f} s, expected {state}")
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, path, json=body, headers=headers)
        except httpx.ConnectError as error:
            raise TourFailed(f"nothing answers at {self._edge_url}: {error}") from error
        except httpx.HTTPError as error:
            raise TourFailed(f"{method} {path}: {type(error).__name__} {error}") from error
        if answer.is_error:
            raise TourFailed(f"{method} {path}: {refused(answer)}")
        document: dict[str, Any] = answer.json()
        return document


def refused(answer: httpx.Response) -> str:
    """Return what a refusal says: its reason, its words, what is wrong with which field, and the id it is logged under."""
    request = f" [request {answer.headers['x-request-id']}]" if "x-request-id" in answer.headers else ""
    try:
        status = answer.json()
        first, *more = status["details"]
        fields = [one for detail in more for one in detail.get("field_violations", ())]
        wrong = "".join(f"; {one['field']}: {one['description']}" for one in fields)
        return f"{answer.status_code} {first['reason']}: {status['message']}{wrong}{request}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text}{request}"


def curl(
    edge_url: str, ca_file: Path, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
) -> str:
    """Return the call as a line for a shell. HTTP/1.1, because an early answer makes older curls stumble over HTTP/2."""
    words = ["curl", "--http1.1", "-sS", "--cacert", str(ca_file), "-X", method, f"{edge_url}{path}"]
    if any(name in os.environ for name in PROXIES):
        words[1:1] = ["--noproxy", "localhost"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    if body is not None:
        words += ["-H", "content-type: application/json", "-d", json.dumps(body)]
    return shlex.join(words)


def buf_curl(edge_url: str, ca_file: Path, rpc: str, headers: Mapping[str, str], body: Mapping[str, Any] | None) -> str:
    """Return the call over gRPC as a line for a shell in the repository."""
    schema = ROOT / "generated" / "descriptors" / "paymesh.binpb"
    words = [".venv/bin/buf", "curl", "--cacert", str(ca_file), "--protocol", "grpc"]
    words += ["--schema", str(schema.relative_to(ROOT))]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    return shlex.join([*words, "-d", json.dumps(body or {}), f"{edge_url}/{rpc}"])


async def tour(edge_url: str, ca_file: Path) -> float:
    """Register, log in, create a merchant, save a card, pay, refund in part; fill a wallet and pay from it; read the balances.
    Returns the (monotonic) second at which the card payment was captured. Raises TourFailed."""
    try:
        trust = ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise TourFailed(f"the edge's certificate authority cannot be read: {ca_file}: {error.strerror}") from error
    async with httpx.AsyncClient(base_url=edge_url, verify=trust, timeout=CALL_SECONDS, trust_env=False) as client:
        guide = Guide(client, edge_url, ca_file)
        people = await _people(guide)
        captured = await _card_purchase(guide, people)
        await _wallet_purchase(guide, people)
        await _balances(guide, people)
        return captured


async def _people(guide: Guide) -> People:
    person = {"email": f"ada.{uuid.uuid4().hex[:8]}@example.com", "password": uuid.uuid4().hex}
    await guide.call("Register", "POST", "/v1/users:register", {**person, "display_name": "Ada"})
    login = await guide.call("Log in", "POST", "/v1/sessions", person, rpc=f"{IDENTITY}/CreateSession")
    customer, user_id = login["access_token"], login["user"]["id"]
    shop = {"display_name": "Ada's Books", "country": "US", "default_currency": "USD"}
    merchant = await guide.call("Create a merchant", "POST", "/v1/merchants", shop, token=customer)
    switch = {"merchant_id": merchant["id"]}
    title = "Act for it"
    seller = (await guide.call(title, "POST", "/v1/sessions:switch_merchant", switch, token=customer))["access_token"]
    card = {"stripe_payment_method_id": "pm_card_visa"}
    method = await guide.call("Save a test card, as the customer", "POST", "/v1/payment_methods", card, token=customer)
    return People(customer=customer, seller=seller, user_id=user_id, method_id=method["id"])


async def _card_purchase(guide: Guide, people: People) -> float:
    customer, seller = people.customer, people.seller
    path = await _order(guide, people, "2500", "Two books", "Ask for 25.00 USD, as the merchant")
    use = {"payment_method_id": people.method_id}
    paid = await guide.call("Confirm, as the customer", "POST", f"{path}:confirm", use, token=customer)
    if paid["state"] != "SUCCEEDED":
        await guide.until(path, "SUCCEEDED", token=customer)
    captured = time.monotonic()
    part = money("500")
    await guide.call("Refund 5.00 USD of it, as the merchant", "POST", f"{path}/refunds", part, token=seller)
    await guide.call("Read the payment", "GET", path, token=seller)
    return captured


async def _wallet_purchase(guide: Guide, people: People) -> None:
    customer, seller = people.customer, people.seller
    wallet = await guide.call(
        "Open a wallet, as the customer", "POST", "/v1/wallets", {"currency": "USD"}, token=customer
    )
    own = f"/v1/wallets/{wallet['id']}"
    fill = {**money("3000"), "payment_method_id": people.method_id}
    title = "Top it up with 30.00 USD from the card"
    top_up = await guide.call(title, "POST", f"{own}/top_ups", fill, token=customer)
    if top_up["state"] != "SUCCEEDED":
        await guide.until(f"{own}/top_ups/{top_up['id']}", "SUCCEEDED", token=customer)
    path = await _order(guide, people, "1800", "A third book", "Ask for 18.00 USD, as the merchant")
    use = {"wallet_id": wallet["id"]}
    paid = await guide.call("Pay it from the wallet, as the customer", "POST", f"{path}:confirm", use, token=customer)
    if paid["state"] != "SUCCEEDED":
        await guide.until(path, "SUCCEEDED", token=customer)
    title = "Refund 3.00 USD of it to the wallet, as the merchant"
    await guide.call(title, "POST", f"{path}/refunds", money("300"), token=seller)
    rpc, message = f"{WALLETS}/GetWallet", {"wallet_id": wallet["id"]}
    wallet = await guide.call("Read the wallet", "GET", own, token=customer, rpc=rpc, message=message)
    told(wallet, ("balance", "held", "available", "pending"))


async def _balances(guide: Guide, people: People) -> None:
    title, rpc = "Read the merchant's balances", f"{WALLETS}/GetBalances"
    balances = await guide.call(title, "GET", "/v1/balances", token=people.seller, rpc=rpc)
    for balance in balances["balances"]:
        told(balance, ("pending", "available", "reserved"))


async def _order(guide: Guide, people: People, amount_minor: str, description: str, title: str) -> str:
    """Have the merchant ask the customer for money; return the payment's path."""
    order = {**money(amount_minor), "customer_id": people.user_id, "description": description}
    rpc = f"{PAYMENTS}/CreatePayment"
    payment = await guide.call(title, "POST", "/v1/payments", order, token=people.seller, rpc=rpc)
    return f"/v1/payments/{payment['id']}"


def money(amount_minor: str) -> dict[str, Any]:
    """Return an amount of dollars as a field of a request."""
    return {"amount": {"amount_minor": amount_minor, "currency": "USD"}}


def told(document: Mapping[str, Any], names: Sequence[str]) -> None:
    """Print the amounts of a wallet or balance on one line."""
    amounts = ", ".join(f"{name} {document[name]['amount_minor']}" for name in names)
    print(f"# {document['currency']}, minor units: {amounts}", flush=True)
