"""What is due by the business clock: authorizations whose window ends."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from servers.kernel.errors import Refusal
from servers.payments.usecases import Deps, end_windows

SWEEP_SECONDS: Final = 5.0
_log = structlog.get_logger("windows")


async def sweep(deps: Deps) -> None:
    """Sweep until cancelled. Two processes may sweep at once: what ends a window is the same, whoever asks."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            ended = await end_windows(deps)
        except (SQLAlchemyError, Refusal) as error:
            _log.warning("sweep.interrupted", error=type(error).__name__)
            continue
        if ended:
            _log.info("authorizations.ended", count=ended)
