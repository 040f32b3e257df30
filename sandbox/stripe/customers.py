"""Customers (https://docs.stripe.com/api/customers)."""

from __future__ import annotations

from typing import Any

from sandbox.stripe.desk import Desk, differences, fresh_metadata, merge_metadata
from sandbox.stripe.payment_methods import NO_ADDRESS, PaymentMethods
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json

_TEXTS = ("description", "email", "name", "phone")


class Customers:
    """POST, GET and DELETE on customers."""

    def __init__(self, desk: Desk, methods: PaymentMethods) -> None:
        self._desk = desk
        self._methods = methods

    def create(self, params: Json) -> Json:
        """POST /v1/customers."""
        customer = self._desk.store.put(
            {
                "id": new_id("cus"),
                "object": "customer",
                "address": _address(params.get("address")),
                "balance": 0,
                "created": self._desk.clock.now(),
                "currency": None,
                "default_source": None,
                "delinquent": False,
                **{name: params.get(name) or None for name in _TEXTS},
                "discount": None,
                "invoice_prefix": None,
                "invoice_settings": {
                    "custom_fields": None,
                    "default_payment_method": None,
                    "footer": None,
                    "rendering_options": None,
                },
                "livemode": False,
                "metadata": fresh_metadata(params.get("metadata")),
                "next_invoice_sequence": 1,
                "preferred_locales": [],
                "shipping": None,
                "tax_exempt": "none",
                "test_clock": None,
            }
        )
        self._desk.events.emit("customer.created", customer)
        return customer

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/customers/{id}."""
        before = self._desk.live_customer(identifier)
        customer = dict(before)
        customer.update({name: params[name] or None for name in _TEXTS if name in params})
        if "address" in params:
            customer["address"] = _address(params["address"])
        merge_metadata(customer, params.get("metadata"))
        self._desk.store.put(customer)
        self._desk.events.emit("customer.updated", customer, before=differences(before, customer))
        return customer

    def delete(self, identifier: str) -> Json:
        """DELETE /v1/customers/{id}: for good; its payment methods are detached."""
        customer = self._desk.live_customer(identifier)
        for method in self._desk.store.newest("payment_method"):
            if method["customer"] == identifier:
                self._methods.let_go(method)
        self._desk.events.emit("customer.deleted", customer)
        return self._desk.store.put({"id": identifier, "object": "customer", "deleted": True})


def _address(given: Any) -> Json | None:
    return {**NO_ADDRESS, **given} if given else None
