"""Writes docs/declines.md from the table of declines; a unit test notices when the page is behind it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dev.paths import ROOT
from servers.payments.declines import REASONS, Reason

PAGE: Final = ROOT / "docs" / "declines.md"
HEAD: Final = """# Declines

Made by `make proto` from the table in `servers/payments/declines.py`. Do not edit this page.

A declined card is a successful call; the attempt's `decline` says why. `recommended_action`:

- `RETRY_LATER`: the same card may work later, not before `retry_after_time`.
- `USE_ANOTHER_CARD`: another one is needed, or the same one entered again.
- `AUTHENTICATE`: the cardholder must be there.
- `STOP`: do not try again.

The issuer's own advice wins over this table. Where it says not to try again, the action is `STOP`; where it says to try later,
there is a `retry_after_time`, of a day unless the table says less; where it says that the card's data are wrong, there is none.

What is marked as hidden is told to merchants only. Payers, and users who save a card or top up, see `declined` then: who holds a
card that is not theirs must not learn what its issuer knows.

| code | action | again after | the cardholder is told | Stripe's codes |
|---|---|---|---|---|
"""


def _again(span: timedelta | None) -> str:
    if span is None:
        return ""
    minutes = int(span.total_seconds()) // 60
    return f"{minutes // 60} h" if minutes >= 60 else f"{minutes} min"


def _row(code: str, reason: Reason) -> str:
    shown = f"`{code}`{' (hidden)' if reason.hidden else ''}"
    theirs = " ".join(f"`{one}`" for one in reason.stripe)
    return f"| {shown} | `{reason.action}` | {_again(reason.retry_after)} | {reason.message} | {theirs} |\n"


def page() -> str:
    """Return the page."""
    return HEAD + "".join(_row(code, reason) for code, reason in REASONS.items())


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
