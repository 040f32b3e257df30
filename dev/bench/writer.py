"""What a transfer costs the ledger's writer, in one process against a durable Postgres: transfers per second and CPU per transfer
at several numbers of callers, over as many single-row commits."""

from __future__ import annotations

import asyncio
import base64
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text

from dev.bench.load import verdict
from dev.bench.platform import free_port
from dev.paths import DOMAINS
from dev.postgres import EmbeddedPostgres
from servers.audit.invariants import WALLETS
from servers.kernel.clock import SystemClock
from servers.kernel.ids import bucket_of, new_id
from servers.runtime.connection import DatabaseOptions, engine_for
from servers.runtime.db import Database
from servers.runtime.migrate import Plan, migrate
from servers.runtime.sealed import Sealer
from servers.wallets import store
from servers.wallets.chain import ChainKeys
from servers.wallets.domain import PLATFORM, AccountKind, Transfer, TransferKind, account_id
from servers.wallets.writer import Writer

CALLERS: Final = (1, 16, 64, 256)
PER_RUN: Final = 2_000
CLOCK: Final = SystemClock()


@dataclass(frozen=True)
class Figure:
    """One measurement."""

    per_second: float
    cpu_us: float


def transfer(debit: str, credit: str) -> Transfer:
    """Return a transfer of one cent."""
    return Transfer(
        id=new_id("trf", clock=CLOCK, bucket=bucket_of(credit)),
        debit_account_id=debit,
        credit_account_id=credit,
        amount_minor=1,
        currency="USD",
        code="bench",
        kind=TransferKind.POSTED,
        fact_id="bench",
        effective_time=datetime.now(UTC),
    )


async def measure(callers: int, one: Callable[[], Awaitable[None]]) -> Figure:
    """Run `one` PER_RUN times from so many callers."""
    left = iter(range(PER_RUN))

    async def caller() -> None:
        for _ in left:
            await one()

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    seconds = time.perf_counter() - began
    return Figure(per_second=PER_RUN / seconds, cpu_us=(time.process_time() - cpu) / PER_RUN * 1e6)


async def bench(url: str) -> dict[str, Any]:
    """Measure and audit."""
    engine = engine_for(url, DatabaseOptions(application_name="bench", pool_size=8))
    db = Database(engine, domain="wallets", clock=CLOCK, sealer=Sealer(base64.b64encode(bytes(32)).decode()))
    owners = [new_id("mer", clock=CLOCK) for _ in range(100)]
    kinds = [
        (PLATFORM, AccountKind.PROCESSOR_CLEARING, "USD"),
        *((o, AccountKind.MERCHANT_PENDING, "USD") for o in owners),
    ]
    async with db.uow() as uow:
        await store.open_accounts(uow.conn, kinds, CLOCK.now())
    clearing, *merchants = (account_id(*kind) for kind in kinds)

    async def commit_alone() -> None:
        async with db.uow() as uow:
            await uow.conn.execute(text("INSERT INTO inbox VALUES ('bench', :id, now())"), {"id": secrets.token_hex(8)})

    writer = Writer(db, keys=ChainKeys([bytes(32)]), queue_max=10_000, batch_max=500)
    task = asyncio.create_task(writer.run())

    async def post() -> None:
        await writer.post([transfer(clearing, secrets.choice(merchants))])

    absolute: dict[str, Any] = {}
    ratios = []
    for callers in CALLERS:
        alone = await measure(min(callers, 8), commit_alone)
        posted = await measure(callers, post)
        ratios.append(posted.per_second / alone.per_second)
        absolute[f"{callers} callers"] = {
            "commits_per_second": round(alone.per_second),
            "transfers_per_second": round(posted.per_second),
            "ratio": round(ratios[-1], 2),
            "cpu_us": round(posted.cpu_us),
        }
    task.cancel()
    async with db.read() as conn:
        broken = [check.title for check in WALLETS if (await conn.execute(text(check.broken))).all()]
    await db.dispose()
    result = verdict(
        rounds=ratios[-1:], aim=3.0, must=2.0, absolute=absolute, cpu_us_per_op=posted.cpu_us, green=not broken
    )
    if broken:
        print(f"BROKEN: {', '.join(broken)}")
    return result


def run() -> dict[str, Any]:
    """Start a Postgres of its own, measure, stop it."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        server = EmbeddedPostgres(Path(scratch) / "postgres", port=free_port(), password="bench", durable=True)  # noqa: S106  # gone in a minute
        server.start()
        try:
            migrate(Plan(admin_url=server.url(), passwords=dict.fromkeys((*DOMAINS, "audit"), "bench")))
            return asyncio.run(bench(server.url("wallets", user="paymesh_wallets", password="bench")))  # noqa: S106  # as above
        finally:
            server.stop()
