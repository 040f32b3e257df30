"""Refunds: never more than was captured, and the bank may send one back."""

from __future__ import annotations

from sandbox.stripe.desk import Desk, differences, fresh_metadata, merge_metadata
from sandbox.stripe.disputes import Disputes
from sandbox.stripe.payment_methods import PaymentMethods
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, invalid

BANK_ANSWERS_AFTER_SECONDS = 3600
"""How long the bank takes to fail or to settle a refund of the cards that do so; Stripe says "some time later"."""
FAILURE_REASONS = (
    "charge_for_pending_refund_disputed",
    "declined",
    "expired_or_canceled_card",
    "insufficient_funds",
    "lost_or_stolen_card",
    "merchant_request",
    "unknown",
)
"""https://docs.stripe.com/refunds#failed-refunds"""


class Refunds:
    """POST and GET on refunds."""

    def __init__(self, desk: Desk, methods: PaymentMethods, disputes: Disputes) -> None:
        self._desk = desk
        self._methods = methods
        self._disputes = disputes

    def create(self, params: Json) -> Json:
        """POST /v1/refunds."""
        charge = self._charge_of(params)
        left = charge["amount_captured"] - charge["amount_refunded"]
        if left <= 0:
            raise invalid(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
        self._disputes.check_refundable(charge)
        amount = params.get("amount", left)
        if amount < 1:
            raise invalid("Invalid positive integer", code="parameter_invalid_integer", param="amount")
        if amount > left:
            raise invalid(
                f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount"
            )
        test = self._methods.test_card({"id": charge["payment_method"]})
        refund = self._new(charge, amount, params, waits=test.refund_waits)
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        self._desk.store.put(refund, parent=charge["payment_intent"] or charge["id"])
        self._desk.store.put(charge)
        self._desk.events.emit("refund.created", refund)
        self._desk.events.emit("charge.refunded", charge)
        self._disputes.review(charge)
        if test.refund_fails or test.refund_waits:
            kind = "refund.fail" if test.refund_fails else "refund.settle"
            self._desk.remind(kind, refund["id"], after_seconds=BANK_ANSWERS_AFTER_SECONDS)
        return refund

    def _new(self, charge: Json, amount: int, params: Json, *, waits: bool) -> Json:
        refund: Json = {
            "id": new_id("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": charge["id"],
            "created": self._desk.clock.now(),
            "currency": charge["currency"],
            "destination_details": {"card": {"type": "refund"}, "type": "card"},
            "metadata": fresh_metadata(params.get("metadata")),
            "payment_intent": charge["payment_intent"],
            "reason": params.get("reason"),
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "pending" if waits else "succeeded",
            "transfer_reversal": None,
        }
        if waits:
            refund["pending_reason"] = "processing"
        paid = self._desk.load("balance_transaction", charge["balance_transaction"], "charge")
        transaction = self._desk.ledger.write(
            kind="refund",
            amount=-amount,
            fee=0,
            currency=charge["currency"],
            source=refund["id"],
            # A refund of money that is still pending comes out of the pending balance.
            available_on=paid["available_on"],
        )
        refund["balance_transaction"] = transaction["id"]
        return refund

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/refunds/{id}: metadata only."""
        before = self._desk.load("refund", identifier, "refund")
        refund = dict(before)
        merge_metadata(refund, params.get("metadata"))
        self._desk.store.put(refund)
        self._tell(before, refund)
        return refund

    def cancel(self, identifier: str) -> Json:
        """POST /v1/refunds/{id}/cancel: card refunds never wait for the customer, so Stripe refuses each of them."""
        refund = self._desk.load("refund", identifier, "refund")
        raise invalid(f"Refund {identifier} cannot be canceled because its status is {refund['status']}.")

    def settle(self, identifier: str) -> Json:
        """A pending refund arrives, unless the cardholder's bank has taken the money meanwhile
        (https://docs.stripe.com/refunds#failed-refunds)."""
        before = self._desk.load("refund", identifier, "refund")
        if before["status"] != "pending":
            raise invalid("The refund is not pending.")
        if self._disputes.is_charged_back(self._desk.load("charge", before["charge"], "charge")):
            return self.fail(identifier, "charge_for_pending_refund_disputed")
        refund = {name: value for name, value in before.items() if name != "pending_reason"} | {"status": "succeeded"}
        self._desk.forget("refund.settle", identifier)
        self._desk.store.put(refund)
        self._tell(before, refund)
        return refund

    def fail(self, identifier: str, reason: str = "lost_or_stolen_card") -> Json:
        """The bank returns a refund: its money comes back (`refund_failure`). Raises ValueError for a reason that Stripe does not
        have."""
        if reason not in FAILURE_REASONS:
            raise ValueError(f"the reason is one of {', '.join(FAILURE_REASONS)}")
        before = self._desk.load("refund", identifier, "refund")
        if before["status"] not in ("succeeded", "pending"):
            raise invalid("The refund is not in succeeded or pending.")
        charge = self._desk.load("charge", before["charge"], "charge")
        booked = self._desk.load("balance_transaction", before["balance_transaction"], "refund")
        transaction = self._desk.ledger.write(
            kind="refund_failure",
            amount=before["amount"],
            fee=0,
            currency=before["currency"],
            source=identifier,
            available_on=booked["available_on"],
        )
        refund = {name: value for name, value in before.items() if name != "pending_reason"} | {
            "status": "failed",
            "failure_reason": reason,
            "failure_balance_transaction": transaction["id"],
        }
        charge.update(amount_refunded=charge["amount_refunded"] - refund["amount"], refunded=False)
        for kind in ("refund.fail", "refund.settle"):
            self._desk.forget(kind, identifier)
        self._desk.store.put(refund)
        self._desk.store.put(charge)
        self._tell(before, refund)
        self._desk.events.emit("refund.failed", refund)
        self._disputes.review(charge)
        return refund

    def _tell(self, before: Json, refund: Json) -> None:
        for name in ("refund.updated", "charge.refund.updated"):
            self._desk.events.emit(name, refund, before=differences(before, refund))

    def _charge_of(self, params: Json) -> Json:
        if params.get("charge"):
            charge = self._desk.load("charge", params["charge"], "charge")
        elif params.get("payment_intent"):
            intent = self._desk.load("payment_intent", params["payment_intent"], "payment_intent")
            if intent["amount_received"] == 0:
                raise invalid(f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.")
            charge = self._desk.load("charge", intent["latest_charge"], "charge")
        else:
            raise invalid("One of the following params should be provided: payment_intent or charge.")
        if not charge["captured"]:
            raise invalid(f"Charge {charge['id']} has not been captured: cancel its PaymentIntent instead.")
        return charge
