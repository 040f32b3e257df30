"""The whole platform in processes of its own, as `make up` starts it, and a client of its edge."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from dev.paths import DOMAINS, ROOT, Ports
from tests.support.collector import Collector
from tests.support.ports import free_port

READY_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 40.0
PASSWORD: Final = "correct horse battery"
RENEWED_BEFORE_SECONDS: Final = 120.0
"""How long before their end tokens are made anew: longer than any test uses one that it was given."""


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Platform:
    """A running stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collector = Collector()
        ports = {f"PAYMESH_PORT_{field.name.upper()}": str(free_port()) for field in fields(Ports)}
        self._env = {"PATH": os.environ["PATH"], "PAYMESH_DATA_DIR": str(folder), **ports}
        self._env["PAYMESH_OTLP_ENDPOINT"] = self.collector.endpoint
        self._log = (folder / "up.log").open("wb")
        command = [sys.executable, "-m", "dev.up", "--no-tour"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + READY_SECONDS
        while not (folder / "up.json").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError((folder / "up.log").read_text())
            time.sleep(0.05)
        self.state: dict[str, Any] = json.loads((folder / "up.json").read_text())
        self.cpu_seconds = {name: _cpu_seconds(self.state["pids"][name]) for name in DOMAINS}
        """What each server took to start."""
        self.edge: str = self.state["edge_url"]
        self.context = ssl.create_default_context(cafile=self.state["ca_file"])

    def audit(self) -> subprocess.CompletedProcess[str]:
        """Run `paymesh audit`."""
        return self.cli("audit")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `paymesh`."""
        command = [str(Path(sys.executable).parent / "paymesh"), *words]
        return subprocess.run(command, cwd=ROOT, env=self._env, capture_output=True, text=True, check=False)

    def arm(self, point: str) -> Path:
        """Have the next process that passes a crash point die there."""
        file = self.folder / "crash" / point
        file.touch()
        return file

    def sandbox(self, path: str, /, **body: Any) -> Any:
        """Use a switch of the Stripe sandbox."""
        url = f"http://127.0.0.1:{self.state['ports']['stripe_sandbox']}/_sandbox/{path}"
        return httpx.post(url, json=body).raise_for_status().json()

    def paid_charges(self) -> dict[str, int]:
        """Return how often each PaymentIntent was charged at the sandbox."""
        url = f"http://127.0.0.1:{self.state['ports']['stripe_sandbox']}/_sandbox/stats"
        paid: dict[str, int] = httpx.get(url).raise_for_status().json()["paid_charges"]
        return paid

    def sql(self, database: str, statement: str) -> list[Any]:
        """Run a statement as superuser: what no server may do."""
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        password = Path(self.state["secrets_dir"], "postgres").read_text()
        url = f"postgresql+psycopg://paymesh:{password}@{self.state['database_address']}/{database}"
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as conn:
            result = conn.execute(text(statement))
            rows: list[Any] = list(result.all()) if result.returns_rows else []
        engine.dispose()
        return rows

    def stop(self) -> None:
        """Stop as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(40)
        finally:
            self.process.kill()
            self._log.close()
            self.collector.stop()


class Login:
    """Somebody's two access tokens, as a customer and for a merchant: made anew before they end, as a long run outlives them."""

    def __init__(self, client: httpx.Client, email: str, merchant_id: str) -> None:
        self._client = client
        self._email = email
        self._merchant_id = merchant_id
        self._until = 0.0
        self._tokens = ("", "")
        self._lock = threading.Lock()

    def tokens(self) -> tuple[str, str]:
        """Return the customer's token and the merchant's."""
        with self._lock:  # callers in many threads log in once, not each: logins are few at a time
            if time.monotonic() > self._until - RENEWED_BEFORE_SECONDS:
                self._renew()
            return self._tokens

    def _renew(self) -> None:
        login = self._ask("/v1/sessions", {"email": self._email, "password": PASSWORD})
        self._until = time.monotonic() + login["expires_in_seconds"]
        merchant = {"merchant_id": self._merchant_id}
        switched = self._ask("/v1/sessions:switch_merchant", merchant, token=login["access_token"])
        self._tokens = (login["access_token"], switched["access_token"])

    def _ask(self, path: str, body: dict[str, str], *, token: str | None = None) -> dict[str, Any]:
        return Shop.ok(insist(lambda: call(self._client, "POST", path, body, token=token)))


@dataclass(frozen=True)
class Shop:
    """A merchant with a customer who has a card, and clients for both."""

    platform: Platform
    client: httpx.Client
    login: Login
    user_id: str
    merchant_id: str
    method_id: str

    @property
    def customer_token(self) -> str:
        """Return the customer's access token."""
        return self.login.tokens()[0]

    @property
    def seller_token(self) -> str:
        """Return the access token for the merchant."""
        return self.login.tokens()[1]

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, key: str | None = None
    ) -> httpx.Response:
        """Call the edge; a POST carries an idempotency key."""
        return call(self.client, method, path, body, token=token, key=key)

    def order(self, amount: int, currency: str = "USD", **more: Any) -> dict[str, Any]:
        """Return what a payment by the customer is asked for with."""
        return {"amount": {"amount_minor": str(amount), "currency": currency}, "customer_id": self.user_id, **more}

    def payment(self, amount: int = 2500, currency: str = "USD", **more: Any) -> dict[str, Any]:
        """Create a payment."""
        return self.ok(self.call("POST", "/v1/payments", self.order(amount, currency, **more), token=self.seller_token))

    def confirm(self, payment_id: str, *, key: str | None = None, method_id: str | None = None) -> httpx.Response:
        """Confirm a payment as the customer."""
        body = {"payment_method_id": method_id or self.method_id}
        return self.call("POST", f"/v1/payments/{payment_id}:confirm", body, token=self.customer_token, key=key)

    def authorized(self, amount: int = 2500) -> dict[str, Any]:
        """Create a payment that is captured later, and confirm it."""
        payment = self.payment(amount, capture_method="MANUAL")
        return self.ok(self.confirm(payment["id"]))

    def capture(
        self, payment_id: str, amount: int | None = None, *, final: bool = False, key: str | None = None
    ) -> httpx.Response:
        """Capture as the merchant."""
        body: dict[str, Any] = {"final": final}
        if amount is not None:
            body["amount"] = {"amount_minor": str(amount), "currency": "USD"}
        return self.call("POST", f"/v1/payments/{payment_id}:capture", body, token=self.seller_token, key=key)

    def cancel(self, payment_id: str, *, key: str | None = None) -> httpx.Response:
        """Cancel as the merchant."""
        return self.call("POST", f"/v1/payments/{payment_id}:cancel", {}, token=self.seller_token, key=key)

    def refund(self, payment_id: str, amount: int | None = None, *, key: str | None = None) -> httpx.Response:
        """Refund as the merchant."""
        body = {"amount": {"amount_minor": str(amount), "currency": "USD"}} if amount is not None else {}
        return self.call("POST", f"/v1/payments/{payment_id}/refunds", body, token=self.seller_token, key=key)

    def read(self, payment_id: str) -> dict[str, Any]:
        """Read a payment as the merchant."""
        return self.ok(self.call("GET", f"/v1/payments/{payment_id}", token=self.seller_token))

    def card(self, test_id: str) -> dict[str, Any]:
        """Save a test card."""
        body = {"stripe_payment_method_id": test_id}
        return self.ok(self.call("POST", "/v1/payment_methods", body, token=self.customer_token))

    def quiet(self) -> None:
        """Wait until nothing is on its way to the ledger any more."""
        behind = "SELECT count(*) FROM claims c JOIN heads h USING (topic, partition) WHERE h.next_offset > c.committed"

        def nothing_waits() -> bool:
            waiting = self.platform.sql("payments", "SELECT count(*) FROM outbox")
            return waiting == [(0,)] and self.platform.sql("eventlog", behind) == [(0,)]

        wait_for(nothing_waits, "the ledger")

    def booked(self, payment_id: str) -> int:
        """Return what the ledger has of a payment's captures, without fees."""
        statement = f"SELECT coalesce(sum(net_minor), 0) FROM lots WHERE payment_id = '{payment_id}'"
        return int(self.platform.sql("wallets", statement)[0][0])

    def pending(self) -> int:
        """Return the merchant's pending balance in USD, minor units."""
        document = self.ok(self.call("GET", "/v1/balances", token=self.seller_token))
        return sum(int(b["pending"]["amount_minor"]) for b in document["balances"] if b["currency"] == "USD")

    @staticmethod
    def ok(response: httpx.Response) -> dict[str, Any]:
        """Return the body of a good answer."""
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document


def call(
    client: httpx.Client, method: str, path: str, body: Any = None, *, token: str | None = None, key: str | None = None
) -> httpx.Response:
    """Call the edge; a POST carries an idempotency key."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    if method == "POST":
        headers["idempotency-key"] = key or str(uuid.uuid4())
    return client.request(method, path, json=body, headers=headers)


def insist(call: Callable[[], httpx.Response]) -> httpx.Response:
    """Repeat a call until it is answered with something else than "not now": what a careful client does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            response = call()
        except httpx.TransportError:
            response = None
        if response is not None and response.status_code not in (409, 429, 500, 503, 504):
            return response
        if time.monotonic() > deadline:
            raise TimeoutError(response.text if response is not None else "no answer")
        time.sleep(0.2)


def refusal_of(response: httpx.Response) -> tuple[int, str]:
    """Return status and reason of an answer that refuses."""
    return response.status_code, reason_of(response)


def reason_of(response: httpx.Response) -> str:
    """Return the reason of an error, which must be one of ours."""
    detail = response.json()["details"][0]
    assert detail["domain"] == "paymesh.dev"
    reason: str = detail["reason"]
    return reason


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition holds, within a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Start the platform; at the end its books must be right, whatever the tests did to it."""
    running = Platform(tmp_path_factory.mktemp("platform"))
    try:
        yield running
        proof = running.audit()
        print(f"\n{proof.stdout}")
        assert proof.returncode == 0, proof.stdout
    finally:
        running.stop()


@pytest.fixture(scope="session")
def shop(platform: Platform) -> Iterator[Shop]:
    """Register a customer with a card and a merchant, through the edge."""
    with httpx.Client(base_url=platform.edge, verify=platform.context, timeout=20) as client:
        yield open_shop(platform, client)


def open_shop(platform: Platform, client: httpx.Client) -> Shop:
    """Register somebody with a card and a merchant."""
    email = f"{uuid.uuid4().hex}@example.com"
    person = {"email": email, "password": PASSWORD}
    Shop.ok(insist(lambda: call(client, "POST", "/v1/users:register", {**person, "display_name": "Ada"})))
    login = Shop.ok(insist(lambda: call(client, "POST", "/v1/sessions", person)))
    body = {"display_name": "Books", "country": "US", "default_currency": "USD"}
    merchant = Shop.ok(call(client, "POST", "/v1/merchants", body, token=login["access_token"]))
    merchant_id = merchant["id"]
    made = Shop(platform, client, Login(client, email, merchant_id), login["user"]["id"], merchant_id, "")
    return replace(made, method_id=made.card("pm_card_visa")["id"])
