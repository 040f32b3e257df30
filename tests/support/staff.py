"""Staff of the running platform: made by the command line, as on any machine."""

from __future__ import annotations

import base64
import time
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from servers.identity.totp import STEP_SECONDS, code_of
from tests.support.mail import mail_to, token_of
from tests.support.stack import PASSWORD, Shop, wait_for


@dataclass
class Colleague:
    """A user with an authenticator app. Each code works once: the app is asked for one after the other."""

    shop: Shop
    email: str
    token: str
    secret: bytes = b""
    step: int = 0

    def code(self) -> str:
        """Return the next code that was not used yet, waiting for it where need be."""
        self.step = max(self.step + 1, int(time.time()) // STEP_SECONDS - 1)
        while self.step > time.time() // STEP_SECONDS + 1:
            time.sleep(0.5)
        return code_of(self.secret, self.step)

    def learn(self, output: str) -> None:
        """Give the app the secret that the command line told."""
        uri = output.partition("otpauth://")[2].split()[0]
        self.secret, self.step = base64.b32decode(parse_qs(urlsplit(f"otpauth://{uri}").query)["secret"][0]), 0

    def switch(self, code: str | None = None) -> httpx.Response:
        """Ask for staff access."""
        body = {"totp_code": code if code is not None else self.code()}
        return self.shop.call("POST", "/v1/sessions:switch_staff", body, token=self.token)


def colleague(shop: Shop, role: str = "") -> Colleague:
    """Return a fresh user with a verified address, and with a role where one is named."""
    person = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
    shop.ok(shop.call("POST", "/v1/users:register", {**person, "display_name": "Grace"}))
    token = token_of(mail_to(shop.platform, person["email"], "Verify"))
    shop.ok(shop.call("POST", "/v1/users:verify_email", {"token": token}))
    made = Colleague(shop, person["email"], shop.ok(shop.call("POST", "/v1/sessions", person))["access_token"])
    if role:
        done = shop.platform.cli("staff", "set", made.email, role)
        assert done.returncode == 0, done.stderr
        made.learn(done.stdout)
    return made


@dataclass(frozen=True)
class Operator:
    """Somebody of the staff who resolves."""

    shop: Shop
    token: str

    def act(self, path: str, decision: str, *, reason: str = "seen in the dashboard", key: str | None = None) -> Any:
        """Decide."""
        body = {"decision": decision, "reason": reason}
        return self.shop.call("POST", path, body, token=self.token, key=key)

    def item_of(self, stripe_source_id: str) -> dict[str, Any]:
        """Return the reconciliation item of a charge or refund at Stripe, once there is one in need of a person."""
        found = f"""
            SELECT id FROM reconciliation_items
            WHERE stripe_source_id = '{stripe_source_id}' AND state IN ('MISMATCH', 'MISSING', 'UNEXPECTED')
            """
        wait_for(lambda: bool(self.shop.platform.sql("payments", found)), "the break")
        (row,) = self.shop.platform.sql("payments", found)
        return self.shop.ok(self.shop.call("GET", f"/v1/reconciliation_items/{row.id}", token=self.token))


@pytest.fixture(scope="session")
def operator(shop: Shop) -> Operator:
    """Return an operator of the platform."""
    return Operator(shop, shop.ok(colleague(shop, "operator").switch())["access_token"])
