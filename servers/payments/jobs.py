"""What is due by the business clock: scheduled captures, authorizations whose window ends, refunds that wait for money, and money
that has been in suspense for too long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from servers.payments import store
from servers.payments.usecases import Deps, act_on_due, end_windows, retry_refunds
from servers.runtime.alerts import alert
from servers.runtime.jobs import Job

SWEEP_SECONDS: Final = 5.0
SUSPENSE_MAX: Final = timedelta(hours=24)
_log = structlog.get_logger("sweep")


async def sweep_due(deps: Deps) -> None:
    """Do what is due, look into authorizations whose time is over, and try again what waits for money: each is the same, whoever
    does it."""
    await act_on_due(deps)
    if ended := await end_windows(deps):
        _log.info("authorizations.ended", count=ended)
    if retried := await retry_refunds(deps):
        _log.info("refunds.retried", count=retried)


def jobs(deps: Deps) -> Sequence[Job]:
    """Return the jobs that run by the clock."""
    return [Job(name="payments.watch_suspense", run=partial(watch_suspense, deps), cron="23 * * * *")]


async def watch_suspense(deps: Deps) -> None:
    """Raise an alert while money is in suspense that nobody decides about."""
    async with deps.db.read() as conn:
        old = await store.old_suspense(conn, deps.clock.now() - SUSPENSE_MAX)
    if old:
        alert("suspense.old", count=len(old), suspense_item_ids=old[:10])
