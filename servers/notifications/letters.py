"""What the mails say: pure, one function per kind. A letter knows nothing of HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from servers.kernel.money import Money, decimal_text
from servers.notifications.domain import EmailKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """What a letter is written from."""

    facts: Mapping[str, str]
    name: str
    """Of whom it is written to; may be empty."""
    merchant: str
    token: str
    public_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One mail's content."""

    subject: str
    greeting: str
    paragraphs: tuple[str, ...]
    rows: tuple[tuple[str, str], ...] = ()
    """A small table: label and value."""
    button: tuple[str, str] | None = None
    """Label and address."""


def write(kind: EmailKind, writer: Writer) -> Letter:
    """Return the letter of a kind."""
    return _LETTERS[kind](writer)


def _hello(writer: Writer) -> str:
    return f"Hello {writer.name}," if writer.name else "Hello,"


def _money(writer: Writer) -> str:
    amount = Money(amount_minor=int(writer.facts["amount_minor"]), currency=writer.facts["currency"])
    return f"{decimal_text(amount)} {amount.currency}"


def _verify(writer: Writer) -> Letter:
    link = f"{writer.public_url}/v1/users:open_email_link?{urlencode({'token': writer.token})}"
    return Letter(
        subject="Verify your email address",
        greeting=_hello(writer),
        paragraphs=(
            "Press the button to show that this address is yours. The link works for three days.",
            "If you did not register, ignore this mail: nothing happens.",
        ),
        button=("Verify my address", link),
    )


def _reset(writer: Writer) -> Letter:
    return Letter(
        subject="Set a new password",
        greeting=_hello(writer),
        paragraphs=(
            "Somebody, probably you, asked for a new password. With this token you can set one within an hour; it works once.",
            writer.token,
            "Give it to the app you asked from, or send it with your new password to POST "
            f"{writer.public_url}/v1/users:reset_password.",
            "If you did not ask, ignore this mail: your password stays as it is.",
        ),
    )


def _password_changed(writer: Writer) -> Letter:
    return Letter(
        subject="Your password was changed",
        greeting=_hello(writer),
        paragraphs=(
            "The password of your account was changed, and other devices were logged out.",
            "If that was not you, ask for a new password at once.",
        ),
    )


def _sign_in(writer: Writer) -> Letter:
    return Letter(
        subject="New sign-in to your account",
        greeting=_hello(writer),
        paragraphs=(
            "Your account was signed in to from a device that we have not seen before.",
            "If that was not you, change your password: that logs every other device out.",
        ),
        rows=(("When", writer.facts["time"]), ("Device", writer.facts["user_agent"] or "unknown")),
    )


def _invitation(writer: Writer) -> Letter:
    return Letter(
        subject=f"{writer.merchant} invites you",
        greeting=_hello(writer),
        paragraphs=(
            f"{writer.merchant} invites you to its team as {writer.facts['role']}. The invitation is open for 14 days.",
            "Register or log in with this address, verify it, and accept the invitation in the app, or with POST "
            f"{writer.public_url}/v1/invitations/{writer.facts['invitation_id']}:accept.",
        ),
    )


def _receipt(writer: Writer) -> Letter:
    rows = [("Paid to", writer.merchant), ("Amount", _money(writer)), ("When", writer.facts["time"])]
    if writer.facts.get("description"):
        rows.append(("For", writer.facts["description"]))
    return Letter(
        subject=f"Your receipt from {writer.merchant}",
        greeting=_hello(writer),
        paragraphs=(f"You paid {_money(writer)} to {writer.merchant}.",),
        rows=(*rows, ("Payment", writer.facts["payment_id"])),
    )


def _refund(writer: Writer) -> Letter:
    where = (
        "The money is in your wallet."
        if writer.facts.get("wallet_id")
        else "Your bank shows it within 5 to 10 business days."
    )
    return Letter(
        subject=f"A refund from {writer.merchant}",
        greeting=_hello(writer),
        paragraphs=(f"{writer.merchant} refunded {_money(writer)}. {where}",),
        rows=(("Refund", writer.facts["refund_id"]), ("Payment", writer.facts["payment_id"])),
    )


def _refund_failed(writer: Writer) -> Letter:
    return Letter(
        subject=f"A refund from {writer.merchant} did not reach you",
        greeting=_hello(writer),
        paragraphs=(
            f"Your bank sent the refund of {_money(writer)} back. Ask {writer.merchant} to pay you in another way.",
        ),
        rows=(("Refund", writer.facts["refund_id"]), ("Payment", writer.facts["payment_id"])),
    )


def _top_up(writer: Writer) -> Letter:
    return Letter(
        subject=f"{_money(writer)} added to your wallet",
        greeting=_hello(writer),
        paragraphs=(f"Your card was charged {_money(writer)}, and the money is in your wallet.",),
        rows=(("Amount", _money(writer)), ("When", writer.facts["time"]), ("Top-up", writer.facts["top_up_id"])),
    )


_LETTERS: Final[Mapping[EmailKind, Callable[[Writer], Letter]]] = {
    EmailKind.VERIFY_EMAIL: _verify,
    EmailKind.RESET_PASSWORD: _reset,
    EmailKind.PASSWORD_CHANGED: _password_changed,
    EmailKind.NEW_SIGN_IN: _sign_in,
    EmailKind.INVITATION: _invitation,
    EmailKind.RECEIPT: _receipt,
    EmailKind.REFUND: _refund,
    EmailKind.REFUND_FAILED: _refund_failed,
    EmailKind.TOP_UP: _top_up,
}
