"""What several tables hold."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row

from servers.payments.domain import Decline, Manner, NextAction, Usage

NOTHING_ASKED: Final = NextAction()


def decline_in(row: Row[Any]) -> Decline | None:
    """Return the decline that a row holds, if any."""
    if row.decline_code is None:
        return None
    return Decline(code=row.decline_code, recommended_action=row.decline_action, message=row.decline_message)


def action_in(row: Row[Any]) -> NextAction:
    """Return the next action that a row holds."""
    return NextAction(url=row.next_action_url, sealed_secret=bytes(row.next_action_secret or b""))


def manner_of(row: Row[Any], *, save_for: Usage, off_session: bool) -> Manner:
    """Return how a confirm is made."""
    return Manner(
        off_session=off_session, return_url=row.return_url, use_stripe_sdk=row.use_stripe_sdk, save_for=save_for
    )
