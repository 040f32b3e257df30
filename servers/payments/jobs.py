"""What is due by the business clock: authorizations whose window ends."""

from __future__ import annotations

from typing import Final

import structlog

from servers.payments.usecases import Deps, end_windows

SWEEP_SECONDS: Final = 5.0
_log = structlog.get_logger("windows")


async def sweep_windows(deps: Deps) -> None:
    """Look into authorizations whose time is over: what ends a window is the same, whoever asks."""
    if ended := await end_windows(deps):
        _log.info("authorizations.ended", count=ended)
