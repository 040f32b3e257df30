"""The edge's limits, on a second Envoy before the same servers with limits small enough to meet."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import httpx
import pytest

from dev import edge, probes
from dev.paths import Ports
from tests.support.ports import free_port
from tests.support.stack import Shop, wait_for

BURST = 5
FEW = {"burst": BURST, "per_second": 1}
MANY = {"burst": 1000, "per_second": 1000}


@dataclass(frozen=True)
class Gate:
    """A second edge."""

    shop: Shop
    url: str

    def ask(self, token: str, times: int, path: str = "/v1/payments?page_size=1") -> list[int]:
        """Ask that often, as fast as it goes. Returns the answers' codes."""
        with httpx.Client(base_url=self.url, verify=self.shop.platform.context, timeout=20) as client:
            headers = {"authorization": f"Bearer {token}"}
            return [client.get(path, headers=headers).status_code for _ in range(times)]


def start(shop: Shop, folder: Path, limits: dict[str, dict[str, int]]) -> tuple[Gate, subprocess.Popen[bytes]]:
    """Start an Envoy with limits."""
    taken = {field.name: shop.platform.state["ports"][field.name] for field in fields(Ports)}
    ports = Ports(**taken | {name: free_port() for name in ("edge", "edge_http", "envoy_admin")})
    tls = shop.platform.folder / "tls"
    (folder / "sds-edge.yaml").write_text(edge.sds("edge", tls / "public"))
    (folder / "sds-mesh.yaml").write_text(edge.sds("mesh", tls / "edge"))
    settings = edge.EdgeSettings(
        ports=ports, run_dir=folder, mesh_dir=tls / "edge", issuer=shop.platform.edge, limits=limits
    )
    (folder / "envoy.yaml").write_text(edge.render(settings))
    binary = Path(sys.executable).parent / "envoy"
    command = [str(binary), "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "1"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
    gate = Gate(shop, f"https://localhost:{ports.edge}")

    ready = probes.edge_serves
    wait_for(lambda: asyncio.run(ready(gate.url, ports.envoy_admin, shop.platform.context)), "the second edge")
    return gate, process


@pytest.fixture
def gate(shop: Shop, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gate]:
    """Start a second edge with the limits that the test asks for."""
    limits = {"all": MANY, "address": MANY, "principal": MANY, **request.param}
    made, process = start(shop, tmp_path, limits)
    yield made
    process.terminate()
    process.wait()


@pytest.mark.parametrize("gate", [{"principal": FEW}], indirect=True)
def test_each_user_and_each_key_has_a_bucket_of_its_own(shop: Shop, gate: Gate) -> None:
    # The buckets are of users, not of tokens: a member's token and a customer's token of one user share one.
    shared = gate.ask(shop.customer_token, 20)
    assert BURST - 2 <= shared.count(200) <= BURST + 3
    assert set(shared) == {200, 429}
    for _ in range(2):
        key = shop.ok(
            shop.call(
                "POST", "/v1/api_keys", {"display_name": "k", "scopes": ["payments:read"]}, token=shop.seller_token
            )
        )
        codes = gate.ask(key["secret"], 20)
        assert BURST <= codes.count(200) <= BURST + 3
    with httpx.Client(base_url=gate.url, verify=shop.platform.context) as client:
        refused = client.get("/v1/payments", headers={"authorization": f"Bearer {key['secret']}"})
    assert refused.json()["details"][0]["reason"] == "RATE_LIMITED"
    assert refused.headers["content-type"] == "application/json"


@pytest.mark.parametrize("gate", [{"address": FEW}], indirect=True)
def test_one_address_cannot_take_everybodys_share(shop: Shop, gate: Gate) -> None:
    codes = gate.ask("not a token", 20)
    assert 429 in codes or codes.count(401) == 20  # without a credential the answer is 401 before any bucket is asked
    codes = gate.ask(shop.seller_token, 20)
    assert 429 in codes
    assert codes.count(200) <= BURST + 3


def test_declines_of_one_customer_are_slowed_down(shop: Shop) -> None:
    customer = shop.user_id
    bad = shop.card("pm_card_chargeCustomerFail")
    payment = shop.payment()
    codes = []
    for _ in range(25):
        answer = shop.confirm(payment["id"], method_id=bad["id"])
        codes.append(answer.status_code)
        if answer.status_code == 429:
            assert answer.json()["details"][0]["metadata"]["limit"] == "declines_of_customer"
            break
    assert codes[-1] == 429
    assert set(codes[:-1]) == {200}
    forget(shop, f"throttle:declines_of_customer:{customer}")
    assert shop.confirm(payment["id"]).status_code == 200


def forget(shop: Shop, name: str) -> None:
    """Empty one limit's memory, for the tests that come after."""
    import redis

    password = Path(shop.platform.state["secrets_dir"], "redis").read_text()
    with redis.Redis(port=shop.platform.state["ports"]["redis"], password=password) as client:
        assert client.delete(name) == 1
