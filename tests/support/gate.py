"""A second Envoy before the servers of the running stack, with limits or a contract of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import httpx
import pytest

from dev import edge, probes
from dev.paths import Ports
from tests.support.ports import free_port
from tests.support.stack import Shop, wait_for


@dataclass(frozen=True)
class Gate:
    """A second edge."""

    shop: Shop
    url: str

    def client(self) -> httpx.Client:
        """Return a client of it."""
        return httpx.Client(base_url=self.url, verify=self.shop.platform.context, timeout=20)

    def ask(self, token: str, times: int, path: str = "/v1/payments?page_size=1", method: str = "GET") -> list[int]:
        """Ask that often, as fast as it goes. Returns the answers' codes."""
        headers = {"authorization": f"Bearer {token}"}
        body: dict[str, str] | None = {} if method == "POST" else None
        with self.client() as client:
            return [client.request(method, path, json=body, headers=headers).status_code for _ in range(times)]


@contextmanager
def second_edge(
    shop: Shop,
    folder: Path,
    *,
    limits: Mapping[str, Mapping[str, int]] = edge.NO_LIMITS,
    descriptors: Path = edge.DESCRIPTORS,
    ports: Mapping[str, int] | None = None,
) -> Iterator[Gate]:
    """Run an Envoy with limits, a contract and servers of its own; what is not given is the stack's, without limits."""
    taken = {field.name: shop.platform.state["ports"][field.name] for field in fields(Ports)}
    own = {name: free_port() for name in ("edge", "edge_http", "envoy_admin")}
    settings = edge.EdgeSettings(
        ports=Ports(**taken | own | dict(ports or {})),
        run_dir=folder,
        mesh_dir=shop.platform.folder / "tls" / "edge",
        issuer=shop.platform.edge,
        limits=edge.NO_LIMITS | dict(limits),
        descriptors=descriptors,
    )
    (folder / "sds-edge.yaml").write_text(edge.sds("edge", shop.platform.folder / "tls" / "public"))
    (folder / "sds-mesh.yaml").write_text(edge.sds("mesh", settings.mesh_dir))
    (folder / "envoy.yaml").write_text(edge.render(settings))
    binary = Path(sys.executable).parent / "envoy"
    command = [str(binary), "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "1"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
    try:
        gate, admin = Gate(shop, f"https://localhost:{own['edge']}"), own["envoy_admin"]
        ready = probes.edge_serves
        wait_for(lambda: asyncio.run(ready(gate.url, admin, shop.platform.context)), "the second edge")
        yield gate
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def gate(shop: Shop, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gate]:
    """Start a second edge with the limits that the test asks for."""
    with second_edge(shop, tmp_path, limits=request.param) as made:
        yield made
