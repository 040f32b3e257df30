"""Mails: what they are about, their states, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from servers.kernel.transitions import Arrow, IllegalTransition, Machine


class EmailKind(Enum):
    """What a mail is."""

    VERIFY_EMAIL = "verify_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105  # a name, not a secret
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  # as above
    NEW_SIGN_IN = "new_sign_in"
    INVITATION = "invitation"
    RECEIPT = "receipt"
    REFUND = "refund"
    REFUND_FAILED = "refund_failed"
    TOP_UP = "top_up"


class EmailState(Enum):
    """The states of a mail."""

    QUEUED = "QUEUED"
    SENT = "SENT"
    FAILED = "FAILED"


class EmailStateInvalid(IllegalTransition):
    """The mail is done."""


EMAIL: Final = Machine(
    name="email",
    states=EmailState,
    terminal=frozenset({EmailState.SENT, EmailState.FAILED}),
    refusal=EmailStateInvalid,
    arrows=(
        Arrow(None, "queue", EmailState.QUEUED, ""),
        Arrow(EmailState.QUEUED, "send", EmailState.SENT, "email.sent"),
        Arrow(EmailState.QUEUED, "fail", EmailState.FAILED, "email.failed"),
    ),
)
MACHINES: Final = (EMAIL,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """One mail to one person. Addresses are asked for when it is sent, and never stored."""

    id: str
    kind: EmailKind
    user_id: str
    """Whom it is written to; "" where the recipient has no account yet."""
    resource_id: str
    facts: Mapping[str, str]
    """What the event said that the mail will say."""
    state: EmailState
    version: int
    create_time: datetime
    update_time: datetime
