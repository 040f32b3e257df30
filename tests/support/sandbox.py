"""A Stripe sandbox of the session's own, its switches, and the endpoint that its webhooks go to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx
import pytest
import stripe

from dev.paths import ROOT
from tests.support.ports import free_port

KEY: Final = "sk_test_sandbox"
SECRET: Final = "whsec_sandbox"
_OPEN: Final[list[stripe.HTTPXClient]] = []


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook as it came."""

    signature: str
    payload: bytes

    @property
    def event(self) -> Any:
        """The event, unverified."""
        return json.loads(self.payload)

    def verified(self) -> Any:
        """Return the event as the unmodified SDK does for a server. Raises SignatureVerificationError for a forged one."""
        return stripe.Webhook.construct_event(self.payload, self.signature, SECRET)

    def is_true(self) -> bool:
        """Say whether it verifies."""
        try:
            self.verified()
        except stripe.SignatureVerificationError:
            return False
        return True


class _Server(ThreadingHTTPServer):
    """One thread a connection. The sandbox connects eight times at once: the queue of five that is usual loses some of them."""

    request_queue_size = 128


class HookEndpoint:
    """A webhook endpoint that remembers what came, in order, and refuses what does not verify."""

    def __init__(self) -> None:
        self.came: list[Hook] = []
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                payload = self.rfile.read(length)
                if len(payload) < length:
                    return  # the sandbox gave up on a delivery that a loaded machine was too slow to read, and sends it again
                hook = Hook(self.headers["stripe-signature"], payload)
                came.append(hook)
                self.send_response(200 if hook.is_true() else 400)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def about(self, identifier: str) -> list[Hook]:
        """Return what came about an object."""
        return [hook for hook in list(self.came) if hook.event["data"]["object"]["id"] == identifier]

    def types(self, identifier: str) -> list[str]:
        """Return the types of the events that came about an object."""
        return [hook.event["type"] for hook in self.about(identifier)]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def eventually(holds: Callable[[], bool], what: str, *, within_seconds: float = 10) -> None:
    """Wait until something holds. Raises AssertionError where it does not in time."""
    deadline = time.monotonic() + within_seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def by_card(**params: Any) -> Any:
    """Return parameters for a card, as the SDK takes them."""
    return {"payment_method_types": ["card"], **params}


def error_of(error: stripe.StripeError) -> Any:
    """Return Stripe's error object as it was sent."""
    body: Any = error.json_body
    return body["error"]


async def customer_with(client: stripe.StripeClient, card: str) -> tuple[str, str]:
    """Return a customer and its attached card."""
    customer = await client.v1.customers.create_async({"email": "a@b.example"})
    method = await client.v1.payment_methods.attach_async(card, {"customer": customer.id})
    return customer.id, method.id


async def paid_intent(client: stripe.StripeClient, amount: int = 2500) -> stripe.PaymentIntent:
    """Return a payment that succeeded."""
    customer, method = await customer_with(client, "pm_card_visa")
    intent = await client.v1.payment_intents.create_async(by_card(amount=amount, currency="usd", customer=customer))
    return await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})


async def guest_payment(client: stripe.StripeClient, card: str, amount: int, **params: Any) -> stripe.PaymentIntent:
    """Return a guest's confirmed payment."""
    base = by_card(amount=amount, currency="usd", payment_method=card, confirm=True)
    return await client.v1.payment_intents.create_async(base | params)


async def authorized(client: stripe.StripeClient, amount: int = 1000) -> stripe.PaymentIntent:
    """Return an authorized payment that asks for multicapture."""
    customer, method = await customer_with(client, "pm_card_visa")
    options = {"card": {"request_multicapture": "if_available"}}
    params = by_card(amount=amount, currency="usd", customer=customer, capture_method="manual")
    intent = await client.v1.payment_intents.create_async(params | {"payment_method_options": options})
    return await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})


class SandboxProcess:
    """A sandbox that can be killed and started again."""

    def __init__(self, folder: str) -> None:
        self.hooks = HookEndpoint()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            "PATH": os.environ["PATH"],
            "STRIPE_SANDBOX_PORT": str(self.port),
            "STRIPE_SANDBOX_DATA_DIR": folder,
            "STRIPE_SANDBOX_API_KEY": KEY,
            "STRIPE_SANDBOX_WEBHOOK_SECRET": SECRET,
            "STRIPE_SANDBOX_WEBHOOK_URL": self.hooks.url,
        }
        self.start()

    def start(self, **env: str) -> None:
        """Start, and wait until it answers."""
        self.process = subprocess.Popen([sys.executable, "-m", "sandbox.stripe"], cwd=ROOT, env=self._env | env)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/_sandbox/healthz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        self.kill()
        raise TimeoutError("the sandbox did not start")

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def switch(self, path: str, /, **body: Any) -> Any:
        """Use a switch of `/_sandbox/`."""
        return httpx.post(f"{self.url}/_sandbox/{path}", json=body).raise_for_status().json()

    def page(self, url: str, **form: str) -> httpx.Response:
        """Open a page of the sandbox as a browser does, or press one of its buttons; redirects are not followed."""
        return httpx.post(url, data=form) if form else httpx.get(url)

    def fetch(self, path: str) -> Any:
        """Return the plain JSON of an answer."""
        return httpx.get(f"{self.url}{path}", headers={"authorization": f"Bearer {KEY}"}).raise_for_status().json()

    def all(self, path: str) -> Iterator[Any]:
        """Return all objects of a list."""
        after = ""
        while True:
            page = self.fetch(f"{path}?limit=100{after}")
            yield from page["data"]
            if not page["has_more"]:
                return
            after = f"&starting_after={page['data'][-1]['id']}"

    def log(self, path: str, method: str = "post") -> Any:
        """Return what was asked of the paths that the pattern is found in."""
        asked = {"path": path, "method": method}
        return httpx.get(f"{self.url}/_sandbox/log", params=asked).raise_for_status().json()["requests"]

    def ledger(self) -> Any:
        """Return the exported ledger."""
        return httpx.get(f"{self.url}/_sandbox/ledger").raise_for_status().json()

    def weather(self) -> Any:
        """Return the weather, and what came of it."""
        return httpx.get(f"{self.url}/_sandbox/weather").raise_for_status().json()

    def stats(self) -> Any:
        """Return what was counted."""
        return httpx.get(f"{self.url}/_sandbox/stats").raise_for_status().json()

    def client(self) -> stripe.StripeClient:
        """Return the unmodified SDK, pointed here."""
        http_client = stripe.HTTPXClient(timeout=10, allow_sync_methods=False)
        _OPEN.append(http_client)
        return stripe.StripeClient(
            KEY, base_addresses={"api": self.url, "files": self.url}, http_client=http_client, max_network_retries=0
        )


async def close_clients() -> None:
    """Close the connections of all SDK clients. The warning of a socket that is collected while open breaks CPython 3.11's parser,
    if hypothesis or a test parses code just then ("AST constructor recursion depth mismatch")."""
    while _OPEN:
        await _OPEN.pop().close_async()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """Start the sandbox."""
    process = SandboxProcess(str(tmp_path_factory.mktemp("sandbox")))
    yield process
    process.kill()
    process.hooks.close()
