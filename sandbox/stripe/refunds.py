"""Refunds: never more than was captured, and the bank may send one back (https://docs.stripe.com/refunds)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sandbox.stripe.cards import TestCard
from sandbox.stripe.desk import Desk, differences, fresh_metadata, merge_metadata
from sandbox.stripe.disputes import Disputes
from sandbox.stripe.payment_methods import PaymentMethods
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, invalid

BANK_ANSWERS_AFTER_SECONDS: Final = 3600
"""How long the bank takes to fail or to settle a refund that is not done at once; Stripe says "some time later"."""
ACTION_EXPIRES_AFTER_SECONDS: Final = 45 * 24 * 3600
"""How long the customer has to say where the money should go."""
FAILURE_REASONS: Final = (
    "charge_for_pending_refund_disputed",
    "declined",
    "expired_or_canceled_card",
    "insufficient_funds",
    "lost_or_stolen_card",
    "merchant_request",
    "unknown",
)
"""https://docs.stripe.com/refunds#failed-refunds"""
UNBOOKED: Final = ("charge_pending", "insufficient_funds")
"""Why a pending refund has taken no money yet."""
_FIRST: Final = ("succeeded", "pending", "requires_action")
_THEN: Final = ("", "succeeded", "failed")
_WAITING: Final = ("pending", "requires_action")


@dataclass(slots=True, kw_only=True)
class Plan:
    """How a refund goes."""

    status: str = "succeeded"
    pending_reason: str = "processing"
    then: str = ""
    """What becomes of it later; nothing, if empty."""
    failure_reason: str = "lost_or_stolen_card"
    after_seconds: int = BANK_ANSWERS_AFTER_SECONDS
    charge: str = ""
    """For the refunds of this charge only."""
    times: int = 1
    """For so many refunds."""


@dataclass(slots=True)
class Plans:
    """What a test has arranged for the next refunds; the first that fits is taken. They are gone after a restart."""

    rules: list[Plan] = field(default_factory=list)

    def add(self, given: Json) -> Json:
        """Arrange something. Raises ValueError or TypeError for what makes no sense."""
        plan = Plan(**given)
        reasons = (*UNBOOKED, "processing")
        if plan.status not in _FIRST or plan.then not in _THEN or plan.pending_reason not in reasons:
            raise ValueError(f"status is one of {_FIRST}, then of {_THEN}, pending_reason of {reasons}")
        _check_reason(plan.failure_reason)
        self.rules.append(plan)
        return {"ok": True}

    def clear(self) -> None:
        """Let cards do as they do."""
        self.rules.clear()

    def take(self, charge: Json, test: TestCard) -> Plan:
        """Return the plan for a refund, used once; else what the card does."""
        for plan in self.rules:
            if plan.times > 0 and plan.charge in ("", charge["id"]):
                plan.times -= 1
                return plan
        if test.refund_fails:
            return Plan(then="failed")
        return Plan(status="pending", then="succeeded") if test.refund_waits else Plan()


class Refunds:
    """POST and GET on refunds."""

    def __init__(self, desk: Desk, methods: PaymentMethods, disputes: Disputes) -> None:
        self._desk = desk
        self._methods = methods
        self._disputes = disputes
        self.plans = Plans()

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
        plan = self.plans.take(charge, self._methods.test_card({"id": charge["payment_method"]}))
        refund = self._new(charge, amount, params, plan)
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        self._desk.store.put(refund, parent=charge["payment_intent"] or charge["id"])
        self._desk.store.put(charge)
        self._desk.events.emit("refund.created", refund)
        self._desk.events.emit("charge.refunded", charge)
        self._disputes.review(charge)
        if plan.then == "succeeded":
            self._desk.remind("refund.settle", refund["id"], after_seconds=plan.after_seconds)
        elif plan.then == "failed":
            self._desk.remind(f"refund.fail.{plan.failure_reason}", refund["id"], after_seconds=plan.after_seconds)
        elif plan.status == "requires_action":
            self._desk.remind("refund.expire", refund["id"], after_seconds=ACTION_EXPIRES_AFTER_SECONDS)
        return refund

    def _new(self, charge: Json, amount: int, params: Json, plan: Plan) -> Json:
        now = self._desk.clock.now()
        refund: Json = {
            "id": new_id("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": charge["id"],
            "created": now,
            "currency": charge["currency"],
            "customer": charge["customer"],
            "destination_details": {"card": {"type": "refund"}, "type": "card"},
            "metadata": fresh_metadata(params.get("metadata")),
            "payment_intent": charge["payment_intent"],
            "payment_method": charge["payment_method"],
            "reason": params.get("reason"),
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": plan.status,
            "transfer_reversal": None,
        }
        if plan.status == "pending":
            refund["pending_reason"] = plan.pending_reason
        if plan.status == "requires_action":
            email = params.get("instructions_email") or charge["receipt_email"] or "customer@sandbox.example"
            sent = {"email_sent_at": now, "email_sent_to": email}
            told = {"email_sent": sent, "expires_at": now + ACTION_EXPIRES_AFTER_SECONDS}
            refund |= {"instructions_email": email}
            refund |= {"next_action": {"type": "display_details", "display_details": told}}
        if refund.get("pending_reason") not in UNBOOKED:
            self._book(refund, charge)
        return refund

    def _book(self, refund: Json, charge: Json) -> None:
        paid = self._desk.load("balance_transaction", charge["balance_transaction"], "charge")
        transaction = self._desk.ledger.write(
            kind="refund",
            amount=-refund["amount"],
            fee=0,
            currency=refund["currency"],
            source=refund["id"],
            # A refund of money that is still pending comes out of the pending balance.
            available_on=paid["available_on"],
        )
        refund["balance_transaction"] = transaction["id"]

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/refunds/{id}: metadata only."""
        before = self._desk.load("refund", identifier, "refund")
        refund = dict(before)
        merge_metadata(refund, params.get("metadata"))
        self._desk.store.put(refund)
        self._tell(before, refund)
        return refund

    def cancel(self, identifier: str) -> Json:
        """POST /v1/refunds/{id}/cancel: only what waits for the customer (https://docs.stripe.com/api/refunds/cancel)."""
        before = self._desk.load("refund", identifier, "refund")
        if before["status"] != "requires_action":
            raise invalid("Canceling this refund is unsupported.")
        return self._give_back(before, "canceled", "merchant_request")

    def expire(self, identifier: str) -> Json:
        """POST /v1/test_helpers/refunds/{id}/expire: the customer never said where the money should go."""
        before = self._desk.load("refund", identifier, "refund")
        if before["status"] != "requires_action":
            raise invalid(f"Only a refund that requires action expires; this one is {before['status']}.")
        return self._give_back(before, "failed", "unknown")

    def settle(self, identifier: str) -> Json:
        """A refund arrives that waited, unless the cardholder's bank has taken the money meanwhile
        (https://docs.stripe.com/refunds#failed-refunds)."""
        before = self._desk.load("refund", identifier, "refund")
        if before["status"] not in _WAITING:
            raise invalid("The refund is not pending.")
        charge = self._desk.load("charge", before["charge"], "charge")
        if self._disputes.is_charged_back(charge):
            return self.fail(identifier, "charge_for_pending_refund_disputed")
        refund = _without_waiting(before) | {"status": "succeeded"}
        if refund["balance_transaction"] is None:
            self._book(refund, charge)
        self._forget(identifier)
        self._desk.store.put(refund)
        self._tell(before, refund)
        return refund

    def fail(self, identifier: str, reason: str = "lost_or_stolen_card") -> Json:
        """The bank returns a refund: its money comes back (`refund_failure`). Raises ValueError for a reason that Stripe does not
        have."""
        _check_reason(reason)
        before = self._desk.load("refund", identifier, "refund")
        if before["status"] not in ("succeeded", *_WAITING):
            raise invalid("The refund is not in succeeded or pending.")
        return self._give_back(before, "failed", reason)

    def due(self) -> dict[str, Callable[[str], object]]:
        """Return what the clock does to refunds, by the kind of its reminder."""
        fails = {f"refund.fail.{reason}": partial(self.fail, reason=reason) for reason in FAILURE_REASONS}
        return {**fails, "refund.settle": self.settle, "refund.expire": self.expire}

    def _give_back(self, before: Json, status: str, reason: str) -> Json:
        """Restore what the charge has left to refund, and the money, if it was taken."""
        refund = _without_waiting(before) | {"status": status, "failure_reason": reason}
        if before["balance_transaction"] is not None:
            booked = self._desk.load("balance_transaction", before["balance_transaction"], "refund")
            transaction = self._desk.ledger.write(
                kind="refund_failure",
                amount=before["amount"],
                fee=0,
                currency=before["currency"],
                source=before["id"],
                available_on=booked["available_on"],
            )
            refund["failure_balance_transaction"] = transaction["id"]
        charge = self._desk.load("charge", before["charge"], "charge")
        charge.update(amount_refunded=charge["amount_refunded"] - refund["amount"], refunded=False)
        self._forget(before["id"])
        self._desk.store.put(refund)
        self._desk.store.put(charge)
        self._tell(before, refund)
        if status == "failed":
            self._desk.events.emit("refund.failed", refund)
        self._disputes.review(charge)
        return refund

    def _forget(self, identifier: str) -> None:
        for kind in self.due():
            self._desk.forget(kind, identifier)

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


def _without_waiting(refund: Json) -> Json:
    return {name: value for name, value in refund.items() if name not in ("pending_reason", "next_action")}


def _check_reason(reason: str) -> None:
    if reason not in FAILURE_REASONS:
        raise ValueError(f"the reason is one of {', '.join(FAILURE_REASONS)}")
