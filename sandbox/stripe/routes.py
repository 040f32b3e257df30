"""Which endpoints the sandbox serves, and with which of Stripe's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sandbox.stripe.customers import Customers
from sandbox.stripe.desk import Desk
from sandbox.stripe.disputes import Disputes
from sandbox.stripe.early_fraud_warnings import EarlyFraudWarnings
from sandbox.stripe.files import Files
from sandbox.stripe.lists import current, listed, served_filters
from sandbox.stripe.payment_intents import PaymentIntents
from sandbox.stripe.payment_methods import PaymentMethods
from sandbox.stripe.payouts import Payouts
from sandbox.stripe.refunds import Refunds
from sandbox.stripe.setup_intents import SetupIntents
from sandbox.stripe.topups import TopUps
from sandbox.stripe.wire import Json, StripeError, missing

Act = Callable[..., Json]
KINDS: Final = {
    "/v1/payment_intents": "payment_intent",
    "/v1/setup_intents": "setup_intent",
    "/v1/charges": "charge",
    "/v1/refunds": "refund",
    "/v1/customers": "customer",
    "/v1/payment_methods": "payment_method",
    "/v1/events": "event",
    "/v1/balance_transactions": "balance_transaction",
    "/v1/disputes": "dispute",
    "/v1/radar/early_fraud_warnings": "radar.early_fraud_warning",
    "/v1/payouts": "payout",
    "/v1/topups": "topup",
    "/v1/files": "file",
}
_NAMED: Final = ("dispute", "file", "payout", "topup")
"""What an unknown one is refused under its own name."""
_CUSTOMER = "address description email expand metadata name phone"
_METHOD = "allow_redisplay billing_details card expand metadata type"
_INTENT = (
    "amount automatic_payment_methods capture_method confirm currency customer description expand metadata off_session "
    "payment_method payment_method_options payment_method_types receipt_email return_url setup_future_usage shipping "
    "statement_descriptor_suffix transfer_group use_stripe_sdk"
)
_INTENT_UPDATE = (
    "amount capture_method currency customer description expand metadata payment_method payment_method_options "
    "payment_method_types receipt_email setup_future_usage shipping statement_descriptor_suffix transfer_group"
)
_CONFIRM = (
    "expand off_session payment_method payment_method_options payment_method_types receipt_email return_url "
    "setup_future_usage shipping use_stripe_sdk"
)
_SETUP = (
    "automatic_payment_methods confirm customer description expand metadata payment_method payment_method_options "
    "payment_method_types return_url usage use_stripe_sdk"
)
_REFUND = "amount charge expand instructions_email metadata payment_intent reason"
_EVIDENCE = "evidence expand metadata submit"
_PAYOUT = "amount currency description destination expand metadata method statement_descriptor"
_TOPUP = "amount currency description expand metadata statement_descriptor transfer_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint: its act takes the checked parameters and the ids of the path."""

    method: str
    path: str
    act: Act
    serves: frozenset[str]

    def check_served(self, params: Iterable[str]) -> None:
        """Raise a 501 for a parameter of Stripe's that would be ignored here: silence would pass for Stripe's answer."""
        for name in params:
            if name not in self.serves:
                what = f"the parameter {name} of {self.method.upper()} {self.path}"
                raise StripeError(
                    501, "api_error", f"The sandbox does not serve {what}.", code="sandbox_not_served", param=name
                )


class Routes:
    """All endpoints of a sandbox."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.methods = PaymentMethods(desk)
        self.customers = Customers(desk, self.methods)
        self.warnings = EarlyFraudWarnings(desk)
        self.disputes = Disputes(desk, self.warnings)
        self.intents = PaymentIntents(desk, self.methods, self.disputes)
        self.setups = SetupIntents(desk, self.methods)
        self.refunds = Refunds(desk, self.methods, self.disputes)
        self.files = Files(desk)
        self.payouts = Payouts(desk)
        self.topups = TopUps(desk)
        self.endpoints = (*self._acts(), *self._money(), *self._reads())
        self._table = [(re.compile(_pattern(e.path)), e) for e in self.endpoints]

    def find(self, method: str, path: str) -> tuple[Endpoint, tuple[str, ...]] | None:
        """Return the endpoint of a request and the ids in its path."""
        for pattern, endpoint in self._table:
            if endpoint.method == method and (found := pattern.fullmatch(path)):
                return endpoint, found.groups()
        return None

    def _acts(self) -> list[Endpoint]:
        intents, setups, methods = self.intents, self.setups, self.methods
        return [
            _post("/v1/customers", _CUSTOMER, self.customers.create),
            _post("/v1/customers/{id}", _CUSTOMER, lambda p, i: self.customers.update(i, p)),
            _endpoint("delete", "/v1/customers/{id}", "", lambda _, i: self.customers.delete(i)),
            _post("/v1/payment_methods", _METHOD, methods.create),
            _post(
                "/v1/payment_methods/{id}", "billing_details card expand metadata", lambda p, i: methods.update(i, p)
            ),
            _post("/v1/payment_methods/{id}/attach", "customer expand", lambda p, i: methods.attach(i, p)),
            _post("/v1/payment_methods/{id}/detach", "expand", lambda _, i: methods.detach(i)),
            _post("/v1/payment_intents", _INTENT, intents.create),
            _post("/v1/payment_intents/{id}", _INTENT_UPDATE, lambda p, i: intents.update(i, p)),
            _post("/v1/payment_intents/{id}/confirm", _CONFIRM, lambda p, i: intents.confirm(i, p)),
            _post(
                "/v1/payment_intents/{id}/capture",
                "amount_to_capture expand final_capture metadata",
                lambda p, i: intents.capture(i, p),
            ),
            _post("/v1/payment_intents/{id}/cancel", "cancellation_reason expand", lambda p, i: intents.cancel(i, p)),
            _post("/v1/setup_intents", _SETUP, setups.create),
            _post(
                "/v1/setup_intents/{id}",
                "customer description expand metadata payment_method",
                lambda p, i: setups.update(i, p),
            ),
            _post(
                "/v1/setup_intents/{id}/confirm",
                "expand payment_method payment_method_options return_url use_stripe_sdk",
                lambda p, i: setups.confirm(i, p),
            ),
            _post("/v1/setup_intents/{id}/cancel", "cancellation_reason expand", lambda p, i: setups.cancel(i, p)),
        ]

    def due(self) -> dict[str, Callable[[str], object]]:
        """Return what the clock does, by the kind of its reminder."""
        return {
            **self.disputes.due(),
            **self.payouts.due(),
            **self.refunds.due(),
            **self.topups.due(),
            "payment_intent.expire": self.intents.expire,
        }

    def _money(self) -> list[Endpoint]:
        disputes, payouts, topups = self.disputes, self.payouts, self.topups
        return [
            _post("/v1/refunds", _REFUND, self.refunds.create),
            _post("/v1/refunds/{id}", "expand metadata", lambda p, i: self.refunds.update(i, p)),
            _post("/v1/refunds/{id}/cancel", "expand", lambda _, i: self.refunds.cancel(i)),
            _post("/v1/test_helpers/refunds/{id}/expire", "expand", lambda _, i: self.refunds.expire(i)),
            _post("/v1/disputes/{id}", _EVIDENCE, lambda p, i: disputes.update(i, p)),
            _post("/v1/disputes/{id}/close", "expand", lambda _, i: disputes.close(i)),
            # The older names of the same: a charge's latest dispute.
            _post("/v1/charges/{id}/dispute", _EVIDENCE, lambda p, i: disputes.update(disputes.of_charge(i), p)),
            _post("/v1/charges/{id}/dispute/close", "expand", lambda _, i: disputes.close(disputes.of_charge(i))),
            _post("/v1/files", "expand file purpose", self.files.create),
            _post("/v1/payouts", _PAYOUT, payouts.create),
            _post("/v1/payouts/{id}", "expand metadata", lambda p, i: payouts.update(i, p)),
            _post("/v1/payouts/{id}/cancel", "expand", lambda _, i: payouts.cancel(i)),
            _post("/v1/topups", _TOPUP, topups.create),
            _post("/v1/topups/{id}", "description expand metadata", lambda p, i: topups.update(i, p)),
            _post("/v1/topups/{id}/cancel", "expand", lambda _, i: topups.cancel(i)),
        ]

    def _reads(self) -> list[Endpoint]:
        lists = [
            Endpoint(method="get", path=path, act=self._list(kind, path), serves=served_filters(kind))
            for path, kind in KINDS.items()
        ]
        ones = [_endpoint("get", path + "/{id}", "expand", self._one(kind)) for path, kind in KINDS.items()]
        return [
            _endpoint("get", "/v1/balance", "expand", lambda _: self.desk.ledger.balance()),
            *lists,
            Endpoint(
                method="get",
                path="/v1/customers/{id}/payment_methods",
                act=self._cards_of,
                serves=served_filters("payment_method"),
            ),
            _endpoint("get", "/v1/customers/{id}/payment_methods/{id}", "expand", self._card_of),
            _endpoint("get", "/v1/charges/{id}/dispute", "expand", self._dispute_of),
            Endpoint(
                method="get",
                path="/v1/charges/{id}/refunds",
                act=self._refunds_of,
                serves=frozenset({"limit", "starting_after", "ending_before", "expand"}),
            ),
            *ones,
        ]

    def _list(self, kind: str, path: str) -> Act:
        return lambda params: listed(self.desk, kind, path, params)

    def _one(self, kind: str) -> Act:
        if kind == "payment_method":
            return lambda _, identifier: self.methods.get(identifier)
        param = "intent" if kind.endswith("_intent") else kind if kind in _NAMED else "id"
        return lambda _, identifier: current(self.desk, self.desk.load(kind, identifier, param))

    def _cards_of(self, params: Json, customer: str) -> Json:
        self.desk.live_customer(customer)
        path = f"/v1/customers/{customer}/payment_methods"
        return listed(self.desk, "payment_method", path, {**params, "customer": customer})

    def _card_of(self, _: Json, customer: str, identifier: str) -> Json:
        method = self.desk.store.get("payment_method", identifier)
        if method is None or method["customer"] != customer:
            raise missing("PaymentMethod", identifier, "payment_method")
        return method

    def _refunds_of(self, params: Json, charge: str) -> Json:
        self.desk.load("charge", charge, "charge")
        return listed(self.desk, "refund", f"/v1/charges/{charge}/refunds", {**params, "charge": charge})

    def _dispute_of(self, _: Json, charge: str) -> Json:
        return self.desk.load("dispute", self.disputes.of_charge(charge), "dispute")


def _pattern(path: str) -> str:
    return path.replace("{id}", "([A-Za-z0-9_]+)")


def _post(path: str, serves: str, act: Act) -> Endpoint:
    return _endpoint("post", path, serves, act)


def _endpoint(method: str, path: str, serves: str, act: Act) -> Endpoint:
    return Endpoint(method=method, path=path, act=act, serves=frozenset(serves.split()))
