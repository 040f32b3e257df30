"""Alerts: what a person must look at. One line in the log, at the level of an error, and one counter to page on."""

from __future__ import annotations

import structlog
from prometheus_client import Counter

_log = structlog.get_logger("alerts")
_raised = Counter("paymesh_alerts_total", "What a person must look at (docs/runbook.md)", ["alert"])


def alert(name: str, **fields: object) -> None:
    """Raise an alert: `name` is its heading in docs/runbook.md, the fields are ids and codes."""
    _log.error(name, **fields)
    _raised.labels(name).inc()
