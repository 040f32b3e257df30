"""What a test has banks and Stripe do: `POST /_sandbox/{disputes, early_fraud_warnings, refunds, payouts, topups, fees}…`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sandbox.stripe.amounts import currency_of
from sandbox.stripe.cards import Case, Opening
from sandbox.stripe.routes import Routes
from sandbox.stripe.wire import Json, invalid

Make = Callable[[Routes, Json], Json]
Verb = Callable[[Routes, str, Json], Json]


def _open_dispute(routes: Routes, body: Json) -> Json:
    """A cardholder disputes a charge. Raises ValueError for what makes no sense."""
    opening = Opening(
        reason=str(body.get("reason", Opening().reason)),
        case=Case(body.get("case", Case.CHARGEBACK)),
        is_compelling=bool(body.get("compelling", False)),
    )
    return routes.disputes.open(
        _charge(routes, body),
        opening,
        currency=body.get("currency"),
        withdraws=_yes(body, "withdraw"),
        **_given(body, "amount", "due_in_seconds", "fee"),
    )


def _charge_fees(routes: Routes, body: Json) -> Json:
    amount = int(body["amount"])
    if amount < 1:
        raise ValueError("a fee is at least 1")
    currency = currency_of(str(body["currency"]))
    return routes.desk.ledger.charge_fees(amount, currency, str(body.get("description", "Radar")))


MAKES: Final[dict[str, Make]] = {
    "disputes": _open_dispute,
    "early_fraud_warnings": lambda routes, body: routes.warnings.issue(
        _charge(routes, body), str(body.get("fraud_type", "misc"))
    ),
    "fees": _charge_fees,
    "refunds": lambda routes, body: routes.refunds.plans.add(body),
    "payouts": lambda routes, body: routes.payouts.sweep(currency_of(str(body["currency"]))),
}
"""By resource: `POST /_sandbox/<resource>`."""
VERBS: Final[dict[tuple[str, str], Verb]] = {
    ("disputes", "escalate"): lambda routes, i, body: routes.disputes.escalate(
        i, withdraws=_yes(body, "withdraw"), **_given(body, "due_in_seconds")
    ),
    ("disputes", "win"): lambda routes, i, body: routes.disputes.win(
        i, reinstates=_yes(body, "reinstate"), returns_fee=_yes(body, "return_fee")
    ),
    ("disputes", "lose"): lambda routes, i, _: routes.disputes.lose(i),
    ("disputes", "reopen"): lambda routes, i, body: routes.disputes.reopen(
        i, withdraws=_yes(body, "withdraw"), **_given(body, "due_in_seconds")
    ),
    ("disputes", "withdraw"): lambda routes, i, body: routes.disputes.withdraw(i, **_given(body, "amount", "fee")),
    ("disputes", "reinstate"): lambda routes, i, body: routes.disputes.reinstate(i, **_given(body, "amount", "fee")),
    ("refunds", "fail"): lambda routes, i, body: routes.refunds.fail(i, *_word(body, "reason")),
    ("refunds", "settle"): lambda routes, i, _: routes.refunds.settle(i),
    ("payouts", "send"): lambda routes, i, _: routes.payouts.send(i),
    ("payouts", "pay"): lambda routes, i, _: routes.payouts.pay(i),
    ("payouts", "fail"): lambda routes, i, body: routes.payouts.fail(i, *_word(body, "code")),
    ("topups", "succeed"): lambda routes, i, _: routes.topups.succeed(i),
    ("topups", "fail"): lambda routes, i, _: routes.topups.fail(i),
    ("topups", "reverse"): lambda routes, i, _: routes.topups.reverse(i),
}
"""By resource and verb: `POST /_sandbox/<resource>/<id>/<verb>`."""


def _charge(routes: Routes, body: Json) -> Json:
    """Return the charge that is meant; by default an intent's latest."""
    if "charge" in body:
        return routes.desk.load("charge", str(body["charge"]), "charge")
    intent = routes.desk.load("payment_intent", str(body["payment_intent"]), "payment_intent")
    if intent["latest_charge"] is None:
        raise invalid(f"PaymentIntent {intent['id']} has no charge.")
    return routes.desk.load("charge", intent["latest_charge"], "charge")


def _yes(body: Json, name: str) -> bool:
    return bool(body.get(name, True))


def _given(body: Json, *names: str) -> dict[str, int]:
    return {name: int(body[name]) for name in names if name in body}


def _word(body: Json, name: str) -> list[str]:
    return [str(body[name])] if name in body else []
