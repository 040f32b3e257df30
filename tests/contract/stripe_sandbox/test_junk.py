"""Junk in any parameter of any endpoint is refused, and never an error of the sandbox's own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import SecretStr

from sandbox.stripe.app import assembled
from sandbox.stripe.routes import KINDS
from sandbox.stripe.settings import Settings
from tests.support.sandbox import KEY, SandboxProcess, by_card, guest_payment

JUNK: Final = (
    {"{}": ""},
    {"{}": "\x00'\"; DROP TABLE objects"},
    {"{}": "-1"},
    {"{}": "9" * 40},
    {"{}[a]": "x"},
    {"{}[0]": "x"},
    {"{}[]": "x"},
    {"{}[gte]": "9" * 40},
    {"{}[card][request_three_d_secure][x]": "any"},
    {"{}[receipt][x]": "y"},
    {"{}[enhanced_evidence][visa_compelling_evidence_3][prior_undisputed_transactions][0]": "x"},
    {"{}[enhanced_evidence][visa_compelling_evidence_3]": "x"},
)
REQUIRED: Final = {
    "/v1/payment_intents": {"amount": "100", "currency": "usd"},
    "/v1/payouts": {"amount": "1", "currency": "usd"},
    "/v1/topups": {"amount": "100", "currency": "usd"},
    "/v1/files": {"purpose": "dispute_evidence"},
}


async def one_of_each(sandbox: SandboxProcess) -> dict[str, str]:
    """Make one object of each kind, and return their ids by the path of their list."""
    client = sandbox.client()
    await guest_payment(client, "pm_card_bypassPending", 50_000)
    await guest_payment(client, "pm_card_createIssuerFraudRecord", 1000)
    paid = await guest_payment(client, "pm_card_visa", 1000)
    await client.v1.refunds.create_async({"payment_intent": paid.id, "amount": 1})
    await client.v1.customers.create_async({})
    await client.v1.setup_intents.create_async(by_card())
    await client.v1.payouts.create_async({"amount": 1, "currency": "usd"})
    await client.v1.topups.create_async({"amount": 100, "currency": "usd"})
    evidence: Any = {"purpose": "dispute_evidence", "file": io.BytesIO(b"%PDF")}
    evidence["file"].name = "receipt.pdf"
    await client.v1.files.create_async(evidence)
    await guest_payment(client, "pm_card_createDisputeInquiry", 1000)
    return {path: sandbox.fetch(f"{path}?limit=1")["data"][0]["id"] for path in KINDS}


async def test_no_junk_breaks_the_sandbox(fresh: SandboxProcess, tmp_path: Path) -> None:
    ids = await one_of_each(fresh)
    box = assembled(Settings(data_dir=tmp_path / "unused", api_key=SecretStr("unused")))
    box.desk.store.db.close()
    broken: list[Any] = []
    async with httpx.AsyncClient(base_url=fresh.url, headers={"authorization": f"Bearer {KEY}"}, timeout=30) as plain:
        for endpoint in box.routes.endpoints:
            collection = max((path for path in ids if endpoint.path.startswith(path)), key=len, default="")
            path = endpoint.path.replace("{id}", ids.get(collection, "none"))
            for name in sorted(endpoint.serves):
                for junk in JUNK:
                    given = {place.format(name): value for place, value in junk.items()}
                    params = {k: v for k, v in REQUIRED.get(endpoint.path, {}).items() if k != name} | given
                    where: Any = {"data" if endpoint.method == "post" else "params": params}
                    answer = await plain.request(endpoint.method, path, **where)
                    if answer.status_code >= 500 and answer.status_code != 501:
                        broken.append((endpoint.method, path, params, answer.text))
    assert broken == []
