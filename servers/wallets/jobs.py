"""What is due by the business clock: holds that end, money that becomes available."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from servers.kernel.errors import Refusal
from servers.wallets.writer import Writer

SWEEP_SECONDS: Final = 2.0
_log = structlog.get_logger("sweep")


async def sweep(writer: Writer) -> None:
    """Sweep until cancelled. Two processes may sweep at once: the ids follow from what is swept, so the second finds it done."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            voided, settled = await writer.void_expired(), await writer.settle_due()
        except (SQLAlchemyError, Refusal) as error:
            _log.warning("sweep.interrupted", error=type(error).__name__)
            continue
        if voided or settled:
            _log.info("ledger.swept", holds_voided=voided, captures_settled=settled)
