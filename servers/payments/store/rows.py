"""What several tables hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

from servers.payments.domain import Decline, Manner, NextAction, Usage
from servers.runtime.sql import Row

NOTHING_ASKED: Final = NextAction()


def record(document: Mapping[str, Any]) -> Any:
    """Return a row that came as JSON inside another one as if it had come by itself."""
    return SimpleNamespace(**{name: _value(name, value) for name, value in document.items()})


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if name.endswith("_time"):
            return datetime.fromisoformat(value)
        if name.endswith("_secret"):
            return bytes.fromhex(value.removeprefix("\\x"))
    return value


def decline_in(row: Row) -> Decline | None:
    """Return the decline that a row holds, if any."""
    if row.decline_code is None:
        return None
    return Decline(
        code=row.decline_code,
        recommended_action=row.decline_action,
        message=row.decline_message,
        retry_after=timedelta(seconds=row.decline_retry_seconds) if row.decline_retry_seconds is not None else None,
        network_code=row.decline_network_code,
    )


DECLINE_COLUMNS: Final = """
    decline_code = :decline_code, decline_action = :decline_action, decline_message = :decline_message,
    decline_retry_seconds = :decline_retry, decline_network_code = :decline_network"""


def decline_values(decline: Decline | None) -> dict[str, object]:
    """Return what `DECLINE_COLUMNS` writes."""
    retry = decline.retry_after if decline is not None else None
    return {
        "decline_code": decline.code if decline else None,
        "decline_action": decline.recommended_action if decline else None,
        "decline_message": decline.message if decline else None,
        "decline_retry": int(retry.total_seconds()) if retry is not None else None,
        "decline_network": decline.network_code if decline else "",
    }


def action_in(row: Row) -> NextAction:
    """Return the next action that a row holds."""
    return NextAction(url=row.next_action_url, sealed_secret=bytes(row.next_action_secret or b""))


def manner_of(row: Row, *, save_for: Usage, off_session: bool) -> Manner:
    """Return how a confirm is made."""
    return Manner(
        off_session=off_session, return_url=row.return_url, use_stripe_sdk=row.use_stripe_sdk, save_for=save_for
    )
