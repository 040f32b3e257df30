"""P10: what we add to a payment at a constant rate: create, confirm, captured, over a floor that nobody can go below, which is two
durable one-row transactions from Python and two bare calls of Stripe's SDK. And whether any queue grows under a higher rate."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import psycopg
import stripe
from paymesh.payments.v1 import payments_pb2, payments_pb2_grpc
from paymesh.type.v1 import money_pb2

from dev.bench.load import verdict
from dev.bench.platform import Bench, free_port, running
from dev.paths import ROOT
from servers.kernel.clock import SystemClock
from servers.kernel.ids import new_id
from servers.runtime.interceptor import DEADLINE_SECONDS

PER_SECOND: Final = 50
SECONDS: Final = 6.0
ROUNDS: Final = 5
FLOOD_PER_SECOND: Final = int(os.environ.get("FLOOD_PER_SECOND", "200"))
FLOOD_SECONDS: Final = float(os.environ.get("FLOOD_SECONDS", "60"))
DRAIN_LOOKS: Final = 300
FLOOR_KEY: Final = "sk_test_floor"
PARTS: Final = ("payments", "wallets", "notifications", "stripe-sandbox", "postgres")
CLOCK: Final = SystemClock()
TURNED_AWAY: Final = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
QUEUES: Final = {
    "outbox of payments": ("payments", "SELECT count(*) FROM outbox"),
    "webhooks to apply": ("payments", "SELECT count(*) FROM stripe_events WHERE state = 'STORED'"),
    "uncertain calls": ("payments", "SELECT count(*) FROM outbound_calls WHERE state IN ('CREATED', 'UNKNOWN')"),
    "outbox of wallets": ("wallets", "SELECT count(*) FROM outbox"),
    "events behind": (
        "eventlog",
        "SELECT coalesce(sum(h.next_offset - c.committed), 0) FROM claims c JOIN heads h USING (topic, partition)",
    ),
}


@dataclass(frozen=True)
class Latencies:
    """What one phase measured, in milliseconds, with what was late to start and what was turned away: an open loop that falls
    behind says so."""

    p50: float
    p99: float
    behind: int
    shed: int

    def as_json(self) -> dict[str, float]:
        """Return it, rounded for reading."""
        return {
            "p50_ms": round(self.p50, 2),
            "p99_ms": round(self.p99, 2),
            "started_late": self.behind,
            "shed": self.shed,
        }


async def at_constant_rate(one: Callable[[], Awaitable[None]], *, per_second: int, seconds: float) -> Latencies:
    """Begin `one` at fixed moments, whatever became of those before; the wait of a late start counts."""
    took: list[float] = []
    behind = shed = 0
    began = time.perf_counter()

    async def timed(due: float) -> None:
        nonlocal shed
        try:
            await one()
        except grpc.aio.AioRpcError as error:
            if error.code() not in TURNED_AWAY:
                raise
            shed += 1
        else:
            took.append(time.perf_counter() - due)

    tasks = []
    for number in range(int(per_second * seconds)):
        due = began + number / per_second
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        elif wait < -0.05:
            behind += 1
        tasks.append(asyncio.create_task(timed(due)))
    await asyncio.gather(*tasks)
    ordered = sorted(took) or [float("inf")]
    return Latencies(ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3, behind, shed)


class Floor:
    """Two durable transactions of one row, and the two calls that a payment cannot do without."""

    def __init__(self, bench: Bench, sandbox_port: int) -> None:
        self._url = _database(bench, "payments")
        self._http = stripe.AIOHTTPClient(timeout=20)  # what the payments server sends with
        self._client = stripe.StripeClient(
            FLOOR_KEY, base_addresses={"api": f"http://127.0.0.1:{sandbox_port}"}, http_client=self._http
        )
        self._idle: list[psycopg.AsyncConnection[Any]] = []

    async def start(self) -> None:
        """Make the table."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as conn:
            await conn.execute("CREATE TABLE IF NOT EXISTS bench_floor (id text PRIMARY KEY)")

    async def stop(self) -> None:
        """Leave nothing behind."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK's own
        for conn in self._idle:
            await conn.close()
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as conn:
            await conn.execute("DROP TABLE bench_floor")

    async def once(self) -> None:
        """Do it once."""
        await self._write()
        intents = self._client.v1.payment_intents
        intent = await intents.create_async({"amount": 2500, "currency": "usd", "payment_method_types": ["card"]})
        await intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
        await self._write()

    async def _write(self) -> None:
        conn = self._idle.pop() if self._idle else await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        await conn.execute("INSERT INTO bench_floor VALUES (%s)", [new_id("flo", clock=CLOCK)])
        self._idle.append(conn)


@contextmanager
def sandbox_of_its_own() -> Iterator[int]:
    """Start a Stripe sandbox for the floor, whose charges are nobody's payments. Yields its port."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        env = {
            **os.environ, "STRIPE_SANDBOX_PORT": str(port), "STRIPE_SANDBOX_DATA_DIR": folder,
            "STRIPE_SANDBOX_API_KEY": FLOOR_KEY,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.stripe"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise TimeoutError("the floor's sandbox did not start")
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(20)


class Till:
    """A merchant who creates payments, shoppers who confirm them in its checkout, as the edge passes them on, with its deadline;
    they are guests, so that what is measured is the payment and not the receipt's mail."""

    def __init__(self, bench: Bench) -> None:
        self._stub = payments_pb2_grpc.PaymentServiceStub(bench.channel("payments", peer="edge"))
        merchant = new_id("mer", clock=CLOCK)
        self._as_merchant = _principal(typ="member", merchant_id=merchant, scope="payments:write payments:read")
        self._as_shopper = _principal(typ="payment_client", merchant_id=merchant, scope="payments:confirm")

    async def pay(self) -> None:
        """Create and confirm a payment that is captured at once."""
        payment = await self._confirmed(payments_pb2.Payment.AUTOMATIC)
        if payment.state != payments_pb2.Payment.SUCCEEDED:
            raise RuntimeError(f"the payment is in {payments_pb2.Payment.State.Name(payment.state)}")

    async def pay_in_two_steps(self) -> None:
        """Create, confirm, and capture later."""
        payment = await self._confirmed(payments_pb2.Payment.MANUAL)
        await self._stub.CapturePayment(
            payments_pb2.CapturePaymentRequest(payment_id=payment.id),
            metadata=(*self._as_merchant, _key()),
            timeout=DEADLINE_SECONDS,
        )

    async def _confirmed(self, method: payments_pb2.Payment.CaptureMethod.ValueType) -> payments_pb2.Payment:
        amount = money_pb2.Money(amount_minor=2500, currency="USD")
        order = payments_pb2.CreatePaymentRequest(amount=amount, capture_method=method)
        payment = await self._stub.CreatePayment(order, metadata=(*self._as_merchant, _key()), timeout=DEADLINE_SECONDS)
        confirm = payments_pb2.ConfirmPaymentRequest(
            payment_id=payment.id, stripe_payment_method_id="pm_card_visa", client_secret=payment.client_secret
        )
        answer: payments_pb2.Payment = await self._stub.ConfirmPayment(
            confirm, metadata=(*self._as_shopper, _key()), timeout=DEADLINE_SECONDS
        )
        return answer


def _principal(**claims: str) -> tuple[tuple[str, str], ...]:
    claims = {"sub": new_id("usr", clock=CLOCK), **claims}
    header = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return (("x-paymesh-principal", header),)


def _key() -> tuple[str, str]:
    return ("idempotency-key", new_id("key", clock=CLOCK))


def _database(bench: Bench, name: str) -> str:
    password = Path(bench.state["secrets_dir"], "postgres").read_text()
    return f"postgresql://paymesh:{password}@{bench.state['database_address']}/{name}"


async def _queues(bench: Bench) -> dict[str, int]:
    lengths = {}
    for name, (database, statement) in QUEUES.items():
        async with await psycopg.AsyncConnection.connect(_database(bench, database)) as conn:
            row = await (await conn.execute(statement)).fetchone()
            lengths[name] = int(row[0]) if row is not None else 0
    return lengths


async def _flood(bench: Bench, till: Till) -> dict[str, Any]:
    """Pay in two steps at the higher rate; look at the queues halfway, at the end, and after as long as they took."""
    halfway: dict[str, int] = {}

    async def look() -> None:
        await asyncio.sleep(FLOOD_SECONDS / 2)
        halfway.update(await _queues(bench))

    looking = asyncio.create_task(look())
    began = time.perf_counter()
    latencies = await at_constant_rate(till.pay_in_two_steps, per_second=FLOOD_PER_SECOND, seconds=FLOOD_SECONDS)
    took = time.perf_counter() - began
    await looking
    at_end = await _queues(bench)
    drained = time.perf_counter()
    for _ in range(DRAIN_LOOKS):
        if not any((await _queues(bench)).values()):
            break
        await asyncio.sleep(0.2)
    return {
        "asked_per_second": FLOOD_PER_SECOND,
        "reached_per_second": round(FLOOD_PER_SECOND * FLOOD_SECONDS / took),
        **latencies.as_json(),
        "queues_halfway": halfway,
        "queues_at_end": at_end,
        "drained_after_seconds": round(time.perf_counter() - drained, 1),
    }


async def _rounds(
    bench: Bench, sandbox_port: int
) -> tuple[list[Latencies], list[Latencies], dict[str, float], dict[str, Any]]:
    till, floor = Till(bench), Floor(bench, sandbox_port)
    await floor.start()
    for one in (till.pay, floor.once):
        await at_constant_rate(one, per_second=PER_SECOND, seconds=1.0)
    ours: list[Latencies] = []
    floors: list[Latencies] = []
    used = dict.fromkeys(PARTS, 0.0)
    for _ in range(ROUNDS):
        before = {part: bench.cpu_seconds(part) for part in PARTS}
        ours.append(await at_constant_rate(till.pay, per_second=PER_SECOND, seconds=SECONDS))
        for part in PARTS:
            used[part] += bench.cpu_seconds(part) - before[part]
        floors.append(await at_constant_rate(floor.once, per_second=PER_SECOND, seconds=SECONDS))
    await floor.stop()
    payments = ROUNDS * SECONDS * PER_SECOND
    per_payment = {part: seconds / payments * 1e6 for part, seconds in used.items()}
    return ours, floors, per_payment, await _flood(bench, till)


def run() -> dict[str, Any]:
    """Measure in turn."""
    with running() as bench, sandbox_of_its_own() as port:
        ours, floors, cpu, flood = asyncio.run(_rounds(bench, port))
        green = bench.audit()
    ratios = [mine.p50 / theirs.p50 for mine, theirs in zip(ours, floors, strict=True)]
    tails = sorted(mine.p99 / theirs.p99 for mine, theirs in zip(ours, floors, strict=True))
    absolute: dict[str, Any] = {
        "payment": sorted(ours, key=lambda one: one.p50)[ROUNDS // 2].as_json(),
        "floor": sorted(floors, key=lambda one: one.p50)[ROUNDS // 2].as_json(),
        "p99_ratio": round(tails[ROUNDS // 2], 2),
        "cpu_us_by_part": {part: round(micros) for part, micros in cpu.items()},
        "flood": flood,
    }
    result = verdict(
        rounds=ratios, aim=2, must=3, absolute=absolute, cpu_us_per_op=sum(cpu.values()), green=green,
        lower_is_better=True,
    )  # fmt: skip
    # Who turns payments away at this rate has no latency to show.
    return {**result, "met": result["met"] and tails[ROUNDS // 2] <= 4 and not any(one.shed for one in ours)}
