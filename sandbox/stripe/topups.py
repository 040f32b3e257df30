"""Top-ups: the platform's bank funds its Stripe balance (https://docs.stripe.com/get-started/account/add-funds)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sandbox.stripe.amounts import check_amount, currency_of
from sandbox.stripe.desk import Desk, fresh_metadata, merge_metadata
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, invalid

ARRIVES_AFTER_SECONDS: Final = 24 * 3600


class TopUps:
    """POST and GET on top-ups, and what the bank does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def create(self, params: Json) -> Json:
        """POST /v1/topups: the money is there a day later."""
        currency = currency_of(params["currency"])
        check_amount(params["amount"], currency)
        now = self._desk.clock.now()
        topup: Json = {
            "id": new_id("tu"),
            "object": "topup",
            "amount": params["amount"],
            "balance_transaction": None,
            "created": now,
            "currency": currency,
            "description": params.get("description"),
            "expected_availability_date": now + ARRIVES_AFTER_SECONDS,
            "failure_code": None,
            "failure_message": None,
            "initiated_by": "user",
            "livemode": False,
            "metadata": fresh_metadata(params.get("metadata")),
            "payment_method": None,
            "payment_method_options": None,
            "source": None,
            "statement_descriptor": params.get("statement_descriptor"),
            "status": "pending",
            "transfer_group": params.get("transfer_group"),
        }
        self._desk.store.put(topup)
        self._desk.remind("topup.succeed", topup["id"], after_seconds=ARRIVES_AFTER_SECONDS)
        self._desk.events.emit("topup.created", topup)
        return topup

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/topups/{id}: its description and metadata. Stripe has no event for it."""
        topup = self._desk.load("topup", identifier, "topup")
        if "description" in params:
            topup["description"] = params["description"] or None
        merge_metadata(topup, params.get("metadata"))
        return self._desk.store.put(topup)

    def cancel(self, identifier: str) -> Json:
        """POST /v1/topups/{id}/cancel: one that did not arrive yet."""
        return self._put(self._expect(identifier, "pending"), "canceled")

    def succeed(self, identifier: str) -> Json:
        """The money is there."""
        topup = self._expect(identifier, "pending")
        topup["balance_transaction"] = self._book(topup, "topup", topup["amount"])
        return self._put(topup, "succeeded")

    def fail(self, identifier: str) -> Json:
        """The bank refuses it."""
        topup = self._expect(identifier, "pending")
        topup.update(failure_code="insufficient_funds", failure_message="The bank account has insufficient funds.")
        return self._put(topup, "failed")

    def reverse(self, identifier: str) -> Json:
        """The bank takes the money back."""
        topup = self._expect(identifier, "succeeded")
        self._book(topup, "topup_reversal", -topup["amount"])
        return self._put(topup, "reversed")

    def due(self) -> dict[str, Callable[[str], object]]:
        """Return what the clock does to top-ups, by the kind of its reminder."""
        return {"topup.succeed": self.succeed}

    def _book(self, topup: Json, kind: str, amount: int) -> str:
        booked = self._desk.ledger.write(
            kind=kind,
            amount=amount,
            fee=0,
            currency=topup["currency"],
            source=topup["id"],
            description=topup["description"],
        )
        identifier: str = booked["id"]
        return identifier

    def _expect(self, identifier: str, status: str) -> Json:
        topup = self._desk.load("topup", identifier, "topup")
        if topup["status"] != status:
            raise invalid(f"The top-up is {topup['status']}, not {status}.", param="topup")
        return topup

    def _put(self, topup: Json, status: str) -> Json:
        self._desk.forget("topup.succeed", topup["id"])
        topup["status"] = status
        self._desk.store.put(topup)
        self._desk.events.emit(f"topup.{status}", topup)
        return topup
