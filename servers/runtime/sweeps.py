"""Sweeps: what is due by the business clock is looked for again and again, and done where it is found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from servers.kernel.errors import Refusal

_log = structlog.get_logger("sweep")


async def sweep(round_of: Callable[[], Awaitable[None]], *, every_seconds: float) -> None:
    """Sweep until cancelled. Two processes may sweep at once: a round does what a second one finds done. One that is interrupted
    leaves its rest to the next."""
    while True:
        await asyncio.sleep(every_seconds)
        try:
            await round_of()
        except (SQLAlchemyError, Refusal) as error:
            _log.warning("sweep.interrupted", error=type(error).__name__)
