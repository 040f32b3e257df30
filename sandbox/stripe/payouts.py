"""Payouts: what is available goes to the platform's bank, and may come back (https://docs.stripe.com/payouts)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sandbox.stripe.amounts import currency_of
from sandbox.stripe.desk import Desk, differences, fresh_metadata, merge_metadata
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, StripeError, invalid

DAY: Final = 24 * 3600
SENT_AFTER_SECONDS: Final = 3600
"""How long a payout can still be canceled."""
ARRIVES_AFTER_DAYS: Final = 2
BANK_ACCOUNT: Final = "ba_sandbox"
"""The account's bank account, an id that Stripe does not have."""
FAILURES: Final = {
    "account_closed": "The bank account has been closed.",
    "account_frozen": "The bank account has been frozen.",
    "bank_account_restricted": "The bank account has restrictions on either the type, or the number, of payouts allowed.",
    "bank_ownership_changed": "The destination bank account is no longer valid because its branch has changed ownership.",
    "could_not_process": "The bank could not process this payout.",
    "debit_not_authorized": "Debit transactions are not approved on your bank account.",
    "declined": "The bank has declined this transfer.",
    "insufficient_funds": "Your Stripe account has insufficient funds to cover the payout.",
    "invalid_account_number": "The routing number seems correct, but the account number is invalid.",
    "incorrect_account_holder_name": "Your bank notified us that the bank account holder name on file is incorrect.",
    "invalid_currency": "The bank was unable to process this payout because of its currency.",
    "no_account": "The bank account details on file are probably incorrect. No bank account could be located with those details.",
    "unsupported_card": "The bank no longer supports payouts to this card.",
}
"""https://docs.stripe.com/api/payouts/failures. `ba_sandbox_<code>` is a bank account whose payouts fail with the code."""
ACCOUNTS: Final = frozenset({BANK_ACCOUNT, *(f"{BANK_ACCOUNT}_{code}" for code in FAILURES)})


class Payouts:
    """POST and GET on payouts, and what the bank does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def create(self, params: Json) -> Json:
        """POST /v1/payouts: of what is available."""
        currency = currency_of(params["currency"])
        amount: int = params["amount"]
        if amount < 1:
            raise invalid(
                "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param="amount"
            )
        if params.get("method", "standard") != "standard":
            raise StripeError(501, "api_error", "The sandbox serves standard payouts only.", param="method")
        destination = params.get("destination") or BANK_ACCOUNT
        if destination not in ACCOUNTS:
            raise invalid(f"No such external account: '{destination}'", code="resource_missing", param="destination")
        if self._desk.ledger.available(currency) < amount:
            raise invalid(
                "You have insufficient available funds in your Stripe account. Try adding funds directly to your available balance "
                "by creating Charges using the 4000000000000077 test card.",
                code="balance_insufficient",
            )
        return self._new(amount, currency, destination, params, is_automatic=False)

    def sweep(self, currency: str) -> Json:
        """Stripe's schedule pays out all that is available. The transactions it pays out are listed by `payout`."""
        available = self._desk.ledger.available(currency)
        if available < 1:
            raise invalid(f"Nothing is available in {currency}.")
        paid_out = self._desk.ledger.not_paid_out(currency)
        payout = self._new(available, currency, BANK_ACCOUNT, {}, is_automatic=True)
        self._desk.ledger.pay_out([*paid_out, payout["balance_transaction"]], payout["id"])
        return payout

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/payouts/{id}: metadata only."""
        before = self._desk.load("payout", identifier, "payout")
        payout = dict(before)
        merge_metadata(payout, params.get("metadata"))
        return self._told(before, payout)

    def cancel(self, identifier: str) -> Json:
        """POST /v1/payouts/{id}/cancel: a manual one that was not sent yet."""
        payout = self._desk.load("payout", identifier, "payout")
        if payout["automatic"] or payout["status"] != "pending":
            raise invalid("Payouts can only be canceled while they are pending and manual.", param="payout")
        payout["status"] = "canceled"
        return self._give_back(payout, kind="payout_cancel", event="payout.canceled")

    def send(self, identifier: str) -> Json:
        """It is on its way."""
        before = self._expect(identifier, "pending")
        self._desk.forget("payout.send", identifier)
        return self._told(before, before | {"status": "in_transit"})

    def pay(self, identifier: str) -> Json:
        """It arrives, or the bank refuses it."""
        before = self._expect(identifier, "pending", "in_transit")
        _, _, code = str(before["destination"]).partition(f"{BANK_ACCOUNT}_")
        if code:
            return self.fail(identifier, code)
        self._forget(identifier)
        is_automatic = before["automatic"]
        payout = before | {"status": "paid", "reconciliation_status": "completed" if is_automatic else "not_applicable"}
        self._desk.store.put(payout)
        self._desk.events.emit("payout.paid", payout)
        if is_automatic:
            self._desk.events.emit("payout.reconciliation_completed", payout)
        return payout

    def fail(self, identifier: str, code: str = "could_not_process") -> Json:
        """The bank sends it back, perhaps days after it was paid. Raises ValueError for a code that Stripe does not have."""
        if code not in FAILURES:
            raise ValueError(f"the failure code is one of {', '.join(FAILURES)}")
        payout = self._expect(identifier, "pending", "in_transit", "paid")
        payout.update(status="failed", failure_code=code, failure_message=FAILURES[code])
        return self._give_back(payout, kind="payout_failure", event="payout.failed")

    def due(self) -> dict[str, Callable[[str], object]]:
        """Return what the clock does to payouts, by the kind of its reminder."""
        return {"payout.send": self.send, "payout.pay": self.pay}

    def _new(self, amount: int, currency: str, destination: str, params: Json, *, is_automatic: bool) -> Json:
        now = self._desk.clock.now()
        arrival = (now // DAY + ARRIVES_AFTER_DAYS) * DAY
        payout: Json = {
            "id": new_id("po"),
            "object": "payout",
            "amount": amount,
            "application_fee": None,
            "application_fee_amount": None,
            "arrival_date": arrival,
            "automatic": is_automatic,
            "balance_transaction": None,
            "created": now,
            "currency": currency,
            "description": params.get("description") or ("STRIPE PAYOUT" if is_automatic else None),
            "destination": destination,
            "failure_balance_transaction": None,
            "failure_code": None,
            "failure_message": None,
            "livemode": False,
            "metadata": fresh_metadata(params.get("metadata")),
            "method": "standard",
            "original_payout": None,
            "payout_method": None,
            "reconciliation_status": "in_progress" if is_automatic else "not_applicable",
            "reversed_by": None,
            "source_type": "card",
            "statement_descriptor": params.get("statement_descriptor"),
            "status": "pending",
            "trace_id": {"status": "pending", "value": None},
            "type": "bank_account",
        }
        booked = self._desk.ledger.write(
            kind="payout",
            amount=-amount,
            fee=0,
            currency=currency,
            source=payout["id"],
            description=payout["description"],
        )
        payout["balance_transaction"] = booked["id"]
        self._desk.store.put(payout)
        self._desk.remind("payout.send", payout["id"], after_seconds=SENT_AFTER_SECONDS)
        self._desk.remind("payout.pay", payout["id"], after_seconds=arrival - now)
        self._desk.events.emit("payout.created", payout)
        return payout

    def _give_back(self, payout: Json, *, kind: str, event: str) -> Json:
        self._forget(payout["id"])
        booked = self._desk.ledger.write(
            kind=kind,
            category="payout_reversal",
            amount=payout["amount"],
            fee=0,
            currency=payout["currency"],
            source=payout["id"],
        )
        payout["failure_balance_transaction"] = booked["id"]
        self._desk.store.put(payout)
        self._desk.events.emit(event, payout)
        return payout

    def _expect(self, identifier: str, *statuses: str) -> Json:
        payout = self._desk.load("payout", identifier, "payout")
        if payout["status"] not in statuses:
            raise invalid(f"The payout is {payout['status']}, not {' or '.join(statuses)}.")
        return payout

    def _forget(self, identifier: str) -> None:
        for kind in self.due():
            self._desk.forget(kind, identifier)

    def _told(self, before: Json, payout: Json) -> Json:
        self._desk.store.put(payout)
        self._desk.events.emit("payout.updated", payout, before=differences(before, payout))
        return payout
