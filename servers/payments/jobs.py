"""What is due by the business clock: scheduled captures, authorizations whose window ends, refunds that wait for money."""

from __future__ import annotations

from typing import Final

import structlog

from servers.payments.usecases import Deps, act_on_due, end_windows, retry_refunds

SWEEP_SECONDS: Final = 5.0
_log = structlog.get_logger("sweep")


async def sweep_due(deps: Deps) -> None:
    """Do what is due, look into authorizations whose time is over, and try again what waits for money: each is the same, whoever
    does it."""
    await act_on_due(deps)
    if ended := await end_windows(deps):
        _log.info("authorizations.ended", count=ended)
    if retried := await retry_refunds(deps):
        _log.info("refunds.retried", count=retried)
