"""What every resource works with, and the rules that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.stripe.cards import TestCard
from sandbox.stripe.clock import Clock
from sandbox.stripe.declines import Decline
from sandbox.stripe.events import Events
from sandbox.stripe.ledger import Ledger
from sandbox.stripe.store import Store
from sandbox.stripe.wire import Json, StripeError, missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The store, the clock, the books and the events of one sandbox."""

    store: Store
    clock: Clock
    ledger: Ledger
    events: Events
    base_url: str

    def load(self, kind: str, identifier: str, param: str) -> Json:
        """Return an object or raise Stripe's 404."""
        found = self.store.get(kind, identifier)
        if found is None:
            # Stripe writes this one as one word.
            raise missing("setupintent" if kind == "setup_intent" else kind, identifier, param)
        return found

    def live_customer(self, identifier: str) -> Json:
        """Return a customer that was not deleted, or raise Stripe's 404."""
        customer = self.load("customer", identifier, "customer")
        if customer.get("deleted"):
            raise missing("customer", identifier, "customer")
        return customer

    def remind(self, kind: str, identifier: str, *, after_seconds: int) -> None:
        """Have something happen to an object later, by the business clock."""
        self.store.db.execute(
            "INSERT OR REPLACE INTO timers VALUES (?, ?, ?)", (identifier, kind, self.clock.now() + after_seconds)
        )

    def forget(self, kind: str, identifier: str) -> None:
        """Take back what `remind` arranged."""
        self.store.db.execute("DELETE FROM timers WHERE object_id = ? AND kind = ?", (identifier, kind))


class Declined(Exception):
    """A decline: the transaction commits, and the answer is an error all the same."""

    def __init__(self, error: StripeError) -> None:
        super().__init__("declined")
        self.error = error


def card_error(test: TestCard, method: Json, **extra: Any) -> StripeError:
    """Return Stripe's 402 for a card that declines (https://docs.stripe.com/api/errors)."""
    reason = test.reason or Decline()
    body: Json = {"code": test.error_code, "doc_url": doc_url(test.error_code), "payment_method": method, **extra}
    if not reason.is_code:
        body["decline_code"] = test.decline
    # What the issuer does not say is left out, not null.
    given = {"advice_code": reason.advice, "network_decline_code": reason.network}
    body |= {name: value for name, value in given.items() if value}
    return StripeError(402, "card_error", reason.message, **body)


def doc_url(code: str) -> str:
    """Return where Stripe explains an error code."""
    return f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"


def merge_metadata(body: Json, changes: Any) -> None:
    """Apply a metadata parameter: an empty value removes its key, an empty string removes all
    (https://docs.stripe.com/api/metadata)."""
    if changes == "":
        body["metadata"] = {}
    elif changes:
        merged = {**(body.get("metadata") or {}), **changes}
        body["metadata"] = {key: value for key, value in merged.items() if value != ""}


def fresh_metadata(changes: Any) -> dict[str, str]:
    """Return the metadata of a new object."""
    body: Json = {}
    merge_metadata(body, changes)
    metadata: dict[str, str] = body.get("metadata", {})
    return metadata


def differences(before: Json, after: Json) -> Json:
    """Return an update event's `previous_attributes`: the top-level values that changed, as they were."""
    return {key: before.get(key) for key in after if before.get(key) != after[key]}
