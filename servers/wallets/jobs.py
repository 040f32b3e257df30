"""What is due by the business clock: holds that end, money that becomes available, roots that are published."""

from __future__ import annotations

from typing import Final

import structlog

from servers.runtime.objects import ObjectStoreUnavailable
from servers.wallets.usecases.roots import RootDiffers, Roots
from servers.wallets.writer import Writer

SWEEP_SECONDS: Final = 2.0
_log = structlog.get_logger("sweep")


async def publish_roots(roots: Roots) -> None:
    """Publish the roots of periods that are over. While the object store is away, the next sweep tries again."""
    try:
        published = await roots.publish_due()
    except (ObjectStoreUnavailable, RootDiffers) as error:
        _log.warning("roots.not_published", error=type(error).__name__, why=str(error)[:200])
        return
    if published:
        _log.info("roots.published", roots=published)


async def sweep_ledger(writer: Writer) -> None:
    """End holds and settle captures that are due: the ids follow from what is swept, so a second sweep finds it done."""
    voided, settled = await writer.void_expired(), await writer.settle_due()
    if voided or settled:
        _log.info("ledger.swept", holds_voided=voided, captures_settled=settled)
