"""What is due by the business clock: holds that end, money that becomes available."""

from __future__ import annotations

from typing import Final

import structlog

from servers.wallets.writer import Writer

SWEEP_SECONDS: Final = 2.0
_log = structlog.get_logger("sweep")


async def sweep_ledger(writer: Writer) -> None:
    """End holds and settle captures that are due: the ids follow from what is swept, so a second sweep finds it done."""
    voided, settled = await writer.void_expired(), await writer.settle_due()
    if voided or settled:
        _log.info("ledger.swept", holds_voided=voided, captures_settled=settled)
