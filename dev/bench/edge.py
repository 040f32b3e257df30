"""P9: what the edge costs: a read over REST through Envoy, with a token and with a key, over the same read direct over gRPC."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
from paymesh.wallets.v1 import wallets_pb2, wallets_pb2_grpc

from dev.bench.load import Figure, measure, middle, verdict
from dev.bench.platform import Bench, running

IN_FLIGHT: Final = 32
ROUNDS: Final = 5
SECONDS: Final = 2.0
PATH: Final = "/v1/balances"


class RestClient:
    """Keeps connections to the edge and speaks just enough HTTP/1.1: a full client would cost more than what is measured."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, credential: str) -> None:
        self._where = (host, port, context)
        lines = (f"GET {PATH} HTTP/1.1", f"host: {host}:{port}", f"authorization: Bearer {credential}", "", "")
        self._request = "\r\n".join(lines).encode()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self) -> None:
        """Read once. Raises ConnectionError for anything but a 200."""
        host, port, context = self._where
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(host, port, ssl=context)
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head)
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        self._idle.append((reader, writer))

    def close(self) -> None:
        """Drop the connections."""
        for _, writer in self._idle:
            writer.close()


def _merchant(bench: Bench, context: ssl.SSLContext) -> tuple[str, str, str]:
    """Return a member's token, an API key and the merchant."""
    with httpx.Client(base_url=bench.state["edge_url"], verify=context, trust_env=False) as client:

        def post(path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            answer: dict[str, Any] = client.post(path, json=body, headers=headers).raise_for_status().json()
            return answer

        person = {"email": f"{uuid.uuid4().hex}@example.com", "password": uuid.uuid4().hex}
        post("/v1/users:register", {**person, "display_name": "Bench"})
        token = post("/v1/sessions", person)["access_token"]
        shop = {"display_name": "Bench", "country": "US", "default_currency": "USD"}
        merchant = post("/v1/merchants", shop, token)["id"]
        member = post("/v1/sessions:switch_merchant", {"merchant_id": merchant}, token)["access_token"]
        key = post("/v1/api_keys", {"display_name": "bench", "scopes": ["balances:read"]}, member)["secret"]
    return member, key, merchant


def _direct(bench: Bench, merchant: str) -> Callable[[], Awaitable[Any]]:
    claims = {"typ": "member", "sub": "usr_bench", "merchant_id": merchant, "scope": "balances:read"}
    header = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    stub = wallets_pb2_grpc.WalletServiceStub(bench.channel("wallets", peer="edge"))
    metadata = (("x-paymesh-principal", header),)

    async def call() -> None:
        await stub.GetBalances(wallets_pb2.GetBalancesRequest(), metadata=metadata)

    return call


async def _rounds(bench: Bench) -> tuple[dict[str, list[Figure]], float]:
    context = ssl.create_default_context(cafile=bench.state["ca_file"])
    member, key, merchant = await asyncio.to_thread(_merchant, bench, context)
    port = bench.port("edge")
    token, api_key = (RestClient("localhost", port, context, credential) for credential in (member, key))
    ways = {"grpc": _direct(bench, merchant), "token": token.get, "api_key": api_key.get}
    for one in ways.values():
        await measure(one, in_flight=IN_FLIGHT, seconds=0.5)
    figures: dict[str, list[Figure]] = {name: [] for name in ways}
    used = 0.0
    for _ in range(ROUNDS):
        for name, one in ways.items():
            before = bench.cpu_seconds("envoy")
            # A pause lets the edge's own limits fill again.
            await asyncio.sleep(2.0)
            figures[name].append(await measure(one, in_flight=IN_FLIGHT, seconds=SECONDS))
            used += bench.cpu_seconds("envoy") - before if name == "token" else 0.0
    token.close()
    api_key.close()
    return figures, used / sum(figure.operations for figure in figures["token"]) * 1e6


def run() -> dict[str, Any]:
    """Measure in turn."""
    with running() as bench:
        figures, cpu = asyncio.run(_rounds(bench))
        green = bench.audit()
    direct = [figure.per_second for figure in figures["grpc"]]
    ratios = [mine.per_second / theirs for mine, theirs in zip(figures["token"], direct, strict=True)]
    keyed = [mine.per_second / theirs for mine, theirs in zip(figures["api_key"], direct, strict=True)]
    absolute: dict[str, Any] = {name: middle(those).as_json() for name, those in figures.items()}
    absolute["api_key_ratio"] = round(sorted(keyed)[len(keyed) // 2], 3)
    return verdict(rounds=ratios, aim=0.9, must=0.75, absolute=absolute, cpu_us_per_op=cpu, green=green)
