"""P3: what the ledger costs on top of an RPC."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.type.v1 import money_pb2
from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc

from dev.bench.load import Figure, measure, middle, verdict
from dev.bench.platform import Bench, free_port, running
from dev.paths import ROOT
from servers.kernel.clock import SystemClock
from servers.kernel.ids import bucket_of, new_id

IN_FLIGHT: Final = 64
ROUNDS: Final = 5
SECONDS: Final = 2.0
CLOCK: Final = SystemClock()


async def poster(bench: Bench) -> Callable[[], Awaitable[Any]]:
    """Return a function that moves one cent to the one hot account."""
    stub = ledger_pb2_grpc.LedgerServiceStub(bench.channel("wallets", peer="payments"))
    owner = new_id("mer", clock=CLOCK)
    kinds = ((ledger_pb2.Account.PROCESSOR_CLEARING, "platform"), (ledger_pb2.Account.CUSTOMER_WALLET, owner))
    wanted = [ledger_pb2.Account(owner_id=who, kind=kind, currency="USD") for kind, who in kinds]
    opened = await stub.CreateAccounts(ledger_pb2.CreateAccountsRequest(accounts=wanted))
    debit, credit = (result.account.id for result in opened.results)
    now = Timestamp()
    now.FromDatetime(datetime.now(UTC))
    cent = money_pb2.Money(amount_minor=1, currency="USD")

    async def post() -> None:
        transfer = ledger_pb2.Transfer(
            id=new_id("trf", clock=CLOCK, bucket=bucket_of(credit)),
            debit_account_id=debit,
            credit_account_id=credit,
            amount=cent,
            code="bench",
            kind=ledger_pb2.Transfer.POSTED,
            fact_id="bench",
            effective_time=now,
        )
        answer = await stub.PostTransfers(ledger_pb2.PostTransfersRequest(transfers=[transfer]))
        if answer.results[0].verdict != ledger_pb2.CREATED:
            raise ArithmeticError(answer)

    return post


@contextmanager
def noop_server(bench: Bench) -> Iterator[int]:
    """Run the baseline's server."""
    port = free_port()
    command = [sys.executable, "-m", "dev.bench.noop", str(port), str(bench.folder / "tls" / "wallets")]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def _rounds(bench: Bench, noop_port: int) -> tuple[list[Figure], list[Figure], float]:
    call: Any = bench.channel("wallets", peer="payments", port=noop_port).unary_unary("/bench.Noop/Call")
    post = await poster(bench)

    async def nothing() -> None:
        await call(b"", wait_for_ready=True)

    for warm in (nothing, post):
        await measure(warm, in_flight=IN_FLIGHT, seconds=1.0)
    base: list[Figure] = []
    ours: list[Figure] = []
    used = 0.0
    for _ in range(ROUNDS):
        base.append(await measure(nothing, in_flight=IN_FLIGHT, seconds=SECONDS))
        before = bench.cpu_seconds("wallets")
        ours.append(await measure(post, in_flight=IN_FLIGHT, seconds=SECONDS))
        used += bench.cpu_seconds("wallets") - before
    return base, ours, used / sum(figure.operations for figure in ours) * 1e6


def run() -> dict[str, Any]:
    """Measure in turn. The p99 must be at most 4 times the no-op's."""
    with running() as bench, noop_server(bench) as port:
        base, ours, cpu = asyncio.run(_rounds(bench, port))
        green = bench.audit()
    ratios = [mine.per_second / theirs.per_second for mine, theirs in zip(ours, base, strict=True)]
    absolute = {"transfer": middle(ours).as_json(), "noop": middle(base).as_json()}
    absolute["p99_ratio"] = {"value": round(middle(ours).p99_ms / middle(base).p99_ms, 2)}
    result = verdict(rounds=ratios, aim=0.75, must=0.5, absolute=absolute, cpu_us_per_op=cpu, green=green)
    result["met"] = result["met"] and absolute["p99_ratio"]["value"] <= 4
    return result
