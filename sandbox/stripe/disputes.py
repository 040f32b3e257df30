"""Disputes: from the cardholder's complaint over the evidence to the issuer's word, and the money that goes and comes back
(https://docs.stripe.com/disputes/how-disputes-work)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from sandbox.stripe.amounts import LARGEST, currency_of
from sandbox.stripe.cards import Case, Opening, TestCard
from sandbox.stripe.desk import Desk, differences, fresh_metadata, merge_metadata
from sandbox.stripe.early_fraud_warnings import EarlyFraudWarnings
from sandbox.stripe.evidence import COMPELLING, COMPLIANCE, eligibility, is_any, merged, nothing_yet
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, invalid

DAY: Final = 24 * 3600
DISPUTE_FEE: Final = 1500
"""What Stripe takes for a chargeback, in the smallest unit (https://stripe.com/pricing)."""
DUE_DAYS: Final = 8
"""Evidence is due at the end of the eighth day; networks give from 7 to 21."""
OVERDUE_AFTER_SECONDS: Final = DAY
"""A chargeback without an answer is lost this long after the deadline; what comes in between is `past_due`."""
LAPSES_AFTER_SECONDS: Final = 120 * DAY
"""An inquiry that did not become a chargeback by then never will (the page above, "Inquiries")."""
ISSUER_ANSWERS_AFTER_SECONDS: Final = 5
"""How long the issuer takes over the evidence of https://docs.stripe.com/testing#evidence; any other waits for a switch."""
WINNING: Final = "winning_evidence"
LOSING: Final = "losing_evidence"
ESCALATING: Final = "escalate_inquiry_evidence"
REASONS: Final = (
    "bank_cannot_process", "check_returned", "credit_not_processed", "customer_initiated", "debit_not_authorized", "duplicate",
    "fraudulent", "general", "incorrect_account_details", "insufficient_funds", "noncompliant", "product_not_received",
    "product_unacceptable", "subscription_canceled", "unrecognized",
)  # fmt: skip
FIRST_STATUS: Final = {
    Case.INQUIRY: "warning_needs_response",
    Case.CHARGEBACK: "needs_response",
    Case.COMPLIANCE: "needs_response",
    Case.BLOCK: "prevented",
    Case.RESOLUTION: "prevented",
}
UNDER_REVIEW: Final = {"needs_response": "under_review", "warning_needs_response": "warning_under_review"}
INQUIRIES: Final = ("warning_needs_response", "warning_under_review")
OPEN: Final = (*UNDER_REVIEW, *UNDER_REVIEW.values())
_NETWORK_CODES: Final = {
    "visa": {
        "credit_not_processed": "13.6", "duplicate": "12.6.1", "fraudulent": "10.4", "product_not_received": "13.1",
        "product_unacceptable": "13.3", "subscription_canceled": "13.2",
    },
    "mastercard": {
        "credit_not_processed": "4853", "duplicate": "4834", "fraudulent": "4837", "product_not_received": "4853",
        "product_unacceptable": "4853", "subscription_canceled": "4853",
    },
    "amex": {
        "credit_not_processed": "C02", "duplicate": "P08", "fraudulent": "F29", "product_not_received": "C08",
        "product_unacceptable": "C31", "subscription_canceled": "C28",
    },
}  # fmt: skip
"""The networks' own codes (https://docs.stripe.com/disputes/categories); a reason without a row has none here."""
_CLOSED: Final = "This dispute is already closed"


class Disputes:
    """GET and POST on disputes, and what cardholders and issuers do."""

    def __init__(self, desk: Desk, warnings: EarlyFraudWarnings) -> None:
        self._desk = desk
        self._warnings = warnings

    def after_payment(self, charge: Json, test: TestCard) -> None:
        """Open what a test card brings with its first captured charge."""
        if charge["disputed"]:
            return
        if test.is_warned_of:
            self._warnings.issue(charge)
        left = charge["amount_captured"]
        for place, opening in enumerate(test.disputes, start=1):
            share = left if place == len(test.disputes) else left // 2
            left -= share
            if share:
                self.open(charge, opening, amount=share)

    def open(
        self,
        charge: Json,
        opening: Opening,
        *,
        amount: int | None = None,
        currency: str | None = None,
        due_in_seconds: int | None = None,
        withdraws: bool = True,
        fee: int = DISPUTE_FEE,
    ) -> Json:
        """A cardholder disputes a captured charge, for any amount. `due_in_seconds` of 0: the issuer takes no response.
        `withdraws`: whether the money is taken at once; the desk may take it later."""
        if not charge["amount_captured"]:
            raise invalid(f"Charge {charge['id']} has not been captured: there is nothing to dispute.")
        if opening.reason not in REASONS:
            raise ValueError(f"the reason is one of {', '.join(REASONS)}")
        amount = charge["amount_captured"] if amount is None else amount
        if not 1 <= amount <= LARGEST:
            raise ValueError(f"the amount is from 1 to {LARGEST}")
        charge["disputed"] = True
        self._desk.store.put(charge)
        dispute = self._new(charge, opening, amount, currency_of(currency or charge["currency"]))
        self._set_deadline(dispute, due_in_seconds)
        if opening.case is Case.INQUIRY:
            self._desk.remind("dispute.lapse", dispute["id"], after_seconds=LAPSES_AFTER_SECONDS)
        self._desk.store.put(dispute, parent=charge["id"])
        self._desk.events.emit("charge.dispute.created", dispute)
        self._warnings.review(charge)
        takes_money = opening.case not in (Case.INQUIRY, Case.BLOCK)
        if withdraws and takes_money:
            self._move(dispute, -amount, fee if dispute["status"] == "needs_response" else 0)
        if dispute["status"] == "prevented":
            self._desk.events.emit("charge.dispute.closed", dispute)
        return dispute

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/disputes/{id}: evidence is submitted unless `submit` is false, and only once in each stage."""
        before = self._open_one(identifier)
        dispute = dict(before)
        submits: bool = params.get("submit", "evidence" in params)
        if dispute["status"] not in UNDER_REVIEW and (submits or "evidence" in params):
            raise invalid(f"The evidence of this dispute was submitted: it is {dispute['status']}.", param="evidence")
        merge_metadata(dispute, params.get("metadata"))
        if "evidence" in params:
            find = partial(self._desk.store.get, "file")
            dispute["evidence"] = merged(before["evidence"], params["evidence"], find)
            dispute["evidence_details"] = before["evidence_details"] | {
                "has_evidence": is_any(dispute["evidence"]),
                "enhanced_eligibility": eligibility(dispute["enhanced_eligibility_types"], dispute["evidence"]),
            }
        if submits:
            self._submit(dispute)
        return self._told(before, dispute)

    def close(self, identifier: str) -> Json:
        """POST /v1/disputes/{id}/close: the merchant accepts it, for good. An inquiry has taken no money to lose."""
        dispute = self._open_one(identifier)
        return self._end(dispute, "warning_closed" if dispute["status"] in INQUIRIES else "lost")

    def of_charge(self, charge: str) -> str:
        """Return the id of a charge's latest dispute, or raise Stripe's 404."""
        self._desk.load("charge", charge, "charge")
        found = self._desk.store.newest("dispute", parent=charge)
        if not found:
            raise invalid(f"No dispute for charge: {charge}", status=404)
        identifier: str = found[0]["id"]
        return identifier

    def check_refundable(self, charge: Json) -> None:
        """Raise Stripe's 400 for the refund of a charge whose money the cardholder's bank has taken or may take."""
        if self.is_charged_back(charge):
            raise invalid(
                f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed"
            )

    def is_charged_back(self, charge: Json) -> bool:
        """Say whether a dispute stands in the way of a refund."""
        return not all(map(_takes_refunds, self._desk.store.newest("dispute", parent=charge["id"])))

    def review(self, charge: Json) -> None:
        """Have the disputes and warnings of a charge say what its refunds changed for them."""
        for before in self._desk.store.newest("dispute", parent=charge["id"]):
            dispute = before | {"is_charge_refundable": _takes_refunds(before) and not charge["refunded"]}
            if dispute != before:
                self._told(before, dispute)
        self._warnings.review(charge)

    def escalate(self, identifier: str, *, due_in_seconds: int | None = None, withdraws: bool = True) -> Json:
        """An inquiry becomes a chargeback. One whose charge was refunded in full never does."""
        before = self._desk.load("dispute", identifier, "dispute")
        if before["status"] not in INQUIRIES:
            raise invalid(f"Only an inquiry becomes a chargeback; this one is {before['status']}.")
        if self._desk.load("charge", before["charge"], "charge")["refunded"]:
            raise invalid("The charge was refunded in full: its inquiry does not become a chargeback.")
        dispute = before | {"status": "needs_response", "is_charge_refundable": False}
        card = before["payment_method_details"]["card"]
        card = card | {"case_type": Case.CHARGEBACK, "network_reason_code": _network_code(card, before["reason"])}
        dispute["payment_method_details"] = before["payment_method_details"] | {"card": card}
        self._desk.forget("dispute.lapse", identifier)
        self._desk.forget("dispute.answer", identifier)
        self._set_deadline(dispute, due_in_seconds)
        self._told(before, dispute)
        return self._move(dispute, -dispute["amount"], DISPUTE_FEE) if withdraws else dispute

    def win(self, identifier: str, *, reinstates: bool = True, returns_fee: bool = True) -> Json:
        """The issuer finds for the merchant, late perhaps; what was withdrawn comes back. An inquiry is closed."""
        dispute = self._desk.load("dispute", identifier, "dispute")
        if dispute["status"] in INQUIRIES:
            return self._end(dispute, "warning_closed")
        if dispute["status"] not in (*OPEN, "lost"):
            raise invalid(_CLOSED)
        dispute.update(status="won", is_charge_refundable=not self._is_refunded(dispute))
        taken, fee = self._withdrawn(dispute)
        if reinstates and taken:
            self._move(dispute, taken, -fee if returns_fee else 0)
        return self._end(dispute, "won")

    def lose(self, identifier: str) -> Json:
        """The issuer finds for the cardholder. An inquiry is closed."""
        dispute = self._open_one(identifier)
        return self._end(dispute, "warning_closed" if dispute["status"] in INQUIRIES else "lost")

    def reopen(self, identifier: str, *, due_in_seconds: int | None = None, withdraws: bool = True) -> Json:
        """The cardholder's bank does not accept that the merchant won (pre-arbitration): the money goes once more, without a
        fee, and evidence may be given again."""
        before = self._desk.load("dispute", identifier, "dispute")
        if before["status"] != "won":
            raise invalid(f"Only a dispute that was won is reopened; this one is {before['status']}.")
        dispute = before | {"status": "needs_response", "is_charge_refundable": False}
        self._set_deadline(dispute, due_in_seconds)
        self._told(before, dispute)
        return self._move(dispute, -dispute["amount"], 0) if withdraws else dispute

    def withdraw(self, identifier: str, *, amount: int | None = None, fee: int = DISPUTE_FEE) -> Json:
        """Stripe takes the money, whatever the status."""
        dispute = self._desk.load("dispute", identifier, "dispute")
        return self._move(dispute, -(dispute["amount"] if amount is None else amount), fee)

    def reinstate(self, identifier: str, *, amount: int | None = None, fee: int | None = None) -> Json:
        """Stripe gives back what it took, whatever the status. `fee`: how much of the fee comes with it; all by default."""
        dispute = self._desk.load("dispute", identifier, "dispute")
        taken, taken_fee = self._withdrawn(dispute)
        return self._move(dispute, taken if amount is None else amount, -(taken_fee if fee is None else fee))

    def due(self) -> dict[str, Callable[[str], object]]:
        """Return what the clock does to disputes, by the kind of its reminder."""
        return {"dispute.answer": self._answer, "dispute.overdue": self._miss, "dispute.lapse": self._lapse}

    def _new(self, charge: Json, opening: Opening, amount: int, currency: str) -> Json:
        card = charge["payment_method_details"]["card"]
        types = _programmes(opening, card["brand"])
        evidence = nothing_yet()
        dispute: Json = {
            "id": new_id("du"),
            "object": "dispute",
            "amount": amount,
            "balance_transactions": [],
            "charge": charge["id"],
            "created": self._desk.clock.now(),
            "currency": currency,
            "enhanced_eligibility_types": types,
            "evidence": evidence,
            "evidence_details": {
                "due_by": None,
                "enhanced_eligibility": eligibility(types, evidence),
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
            },
            "is_charge_refundable": False,
            "livemode": False,
            "metadata": fresh_metadata(None),
            "payment_intent": charge["payment_intent"],
            "payment_method_details": {
                "card": {
                    "brand": card["brand"],
                    "case_type": opening.case,
                    "network": card["network"],
                    # Visa's code for a request for information.
                    "network_reason_code": "10"
                    if opening.case is Case.INQUIRY
                    else _network_code(card, opening.reason),
                },
                "type": "card",
            },
            "reason": opening.reason,
            "status": FIRST_STATUS[opening.case],
        }
        return dispute | {"is_charge_refundable": _takes_refunds(dispute) and not charge["refunded"]}

    def _set_deadline(self, dispute: Json, due_in_seconds: int | None) -> None:
        """Say until when evidence is taken, and have a chargeback lost some time after."""
        now = self._desk.clock.now()
        due_by: int | None = (now // DAY + DUE_DAYS + 1) * DAY - 1
        if dispute["status"] == "prevented":
            due_by = None
        elif due_in_seconds is not None:
            due_by = now + due_in_seconds if due_in_seconds else 0
        dispute["evidence_details"] = dispute["evidence_details"] | {"due_by": due_by}
        if dispute["status"] == "needs_response":
            wait = max(due_by or now, now) - now + OVERDUE_AFTER_SECONDS
            self._desk.remind("dispute.overdue", dispute["id"], after_seconds=wait)

    def _open_one(self, identifier: str) -> Json:
        dispute = self._desk.load("dispute", identifier, "dispute")
        if dispute["status"] not in OPEN:
            raise invalid(_CLOSED)
        return dispute

    def _submit(self, dispute: Json) -> None:
        details = dispute["evidence_details"]
        if not details["has_evidence"]:
            raise invalid("There is no evidence to submit.", param="evidence")
        if details["due_by"] == 0:
            raise invalid("The cardholder's bank takes no response to this dispute.", param="submit")
        for name, standing in details["enhanced_eligibility"].items():
            if name in COMPLIANCE and standing["status"] != "fee_acknowledged":
                raise invalid(
                    "The fee of countering a compliance dispute has to be acknowledged first.",
                    param=f"evidence[enhanced_evidence][{name}][fee_acknowledged]",
                )
        dispute["status"] = UNDER_REVIEW[dispute["status"]]
        dispute["evidence_details"] = details | {
            "past_due": self._desk.clock.now() > details["due_by"],
            "submission_count": details["submission_count"] + 1,
        }
        self._desk.forget("dispute.overdue", dispute["id"])
        answers = (WINNING, LOSING, ESCALATING) if dispute["status"] in INQUIRIES else (WINNING, LOSING)
        if dispute["evidence"]["uncategorized_text"] in answers:
            self._desk.remind("dispute.answer", dispute["id"], after_seconds=ISSUER_ANSWERS_AFTER_SECONDS)

    def _answer(self, identifier: str) -> None:
        """The issuer has read the evidence, and does what Stripe's testing page says of it."""
        dispute = self._desk.load("dispute", identifier, "dispute")
        if dispute["status"] not in UNDER_REVIEW.values():
            return
        text = dispute["evidence"]["uncategorized_text"]
        if text == ESCALATING and self._is_refunded(dispute):
            self._end(dispute, "warning_closed")
        elif text == ESCALATING:
            self.escalate(identifier)
        else:
            (self.win if text == WINNING else self.lose)(identifier)

    def _miss(self, identifier: str) -> None:
        dispute = self._desk.load("dispute", identifier, "dispute")
        if dispute["status"] == "needs_response":
            self._end(dispute, "lost")

    def _lapse(self, identifier: str) -> None:
        dispute = self._desk.load("dispute", identifier, "dispute")
        if dispute["status"] in INQUIRIES:
            self._end(dispute, "warning_closed")

    def _is_refunded(self, dispute: Json) -> bool:
        refunded: bool = self._desk.load("charge", dispute["charge"], "charge")["refunded"]
        return refunded

    def _withdrawn(self, dispute: Json) -> tuple[int, int]:
        """Return the money and the fees that are withdrawn now."""
        moves = dispute["balance_transactions"]
        return -sum(move["amount"] for move in moves), sum(move["fee"] for move in moves)

    def _move(self, dispute: Json, amount: int, fee: int) -> Json:
        """Book money taken or given back, and tell."""
        if not amount:
            raise invalid("There is no money to move.", param="amount")
        is_taken = amount < 0
        transaction = self._desk.ledger.write(
            kind="adjustment",
            category="dispute" if is_taken else "dispute_reversal",
            amount=amount,
            fee=fee,
            fee_name="Dispute fee",
            currency=dispute["currency"],
            source=dispute["id"],
            description=f"Chargeback {'withdrawal' if is_taken else 'reversal'} for {dispute['charge']}",
        )
        dispute["balance_transactions"] = [*dispute["balance_transactions"], transaction]
        self._desk.store.put(dispute)
        self._desk.events.emit(f"charge.dispute.funds_{'withdrawn' if is_taken else 'reinstated'}", dispute)
        return dispute

    def _told(self, before: Json, dispute: Json) -> Json:
        self._desk.store.put(dispute)
        self._desk.events.emit("charge.dispute.updated", dispute, before=differences(before, dispute))
        self._desk.events.emit("charge.updated", self._desk.load("charge", dispute["charge"], "charge"))
        return dispute

    def _end(self, dispute: Json, status: str) -> Json:
        for kind in self.due():
            self._desk.forget(kind, dispute["id"])
        dispute["status"] = status
        dispute["is_charge_refundable"] = _takes_refunds(dispute) and not self._is_refunded(dispute)
        self._desk.store.put(dispute)
        self._desk.events.emit("charge.dispute.closed", dispute)
        self._desk.events.emit("charge.updated", self._desk.load("charge", dispute["charge"], "charge"))
        return dispute


def _programmes(opening: Opening, brand: str) -> list[str]:
    """Return which of the networks' programmes a dispute may be answered by."""
    if opening.is_compelling and brand == "visa":
        return [COMPELLING]
    return [name for name in COMPLIANCE if opening.case is Case.COMPLIANCE and name == f"{brand}_compliance"]


def _takes_refunds(dispute: Json) -> bool:
    """Say whether a dispute lets its charge be refunded: nothing was taken for good, or it came back."""
    is_blocked = dispute["payment_method_details"]["card"]["case_type"] == Case.BLOCK
    return dispute["status"] in (*INQUIRIES, "warning_closed", "won") or is_blocked


def _network_code(card: Json, reason: str) -> str | None:
    return _NETWORK_CODES.get(card["brand"], {}).get(reason)
