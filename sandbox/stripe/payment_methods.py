"""Payment methods: cards of the test table, whose they are, and when one is used up."""

from __future__ import annotations

import re
from typing import Final

from sandbox.stripe.cards import BY_ID, BY_KEY, BY_NUMBER, Secure, TestCard, is_luhn_valid
from sandbox.stripe.desk import Desk, card_error, differences, fresh_metadata, merge_metadata
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, StripeError, invalid, missing

NO_ADDRESS: Final = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
_USED_UP: Final = (
    "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, shared with a connected "
    "account without Customer attachment, or was detached from a Customer. It may not be used again. To use a PaymentMethod "
    "multiple times, you must attach it to a Customer first."
)
_NOT_ATTACHABLE: Final = (
    "This PaymentMethod was previously used without being attached to a Customer or was detached from a Customer, and may not "
    "be used again."
)


class PaymentMethods:
    """Cards: made from the test table only, by number or by static id."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def create(self, params: Json) -> Json:
        """POST /v1/payment_methods: card numbers of the test table only."""
        card = params.get("card") or {}
        if params.get("type") != "card" or "number" not in card:
            raise invalid("The sandbox makes payment methods of type card with a test number only.", param="type")
        number = card["number"].replace(" ", "").replace("-", "")
        test = BY_NUMBER.get(number)
        if test is None:
            raise _refused_number(number)
        _check_expiry(card, self._desk.clock.now())
        return self._mint(test, params)

    def get(self, identifier: str) -> Json:
        """Return a payment method; a static test id mints a real one, as at Stripe."""
        if identifier in BY_ID:
            return self._mint(BY_ID[identifier], {})
        found = self._desk.store.get("payment_method", identifier)
        if found is None:
            raise missing("PaymentMethod", identifier, "payment_method")
        return found

    def test_card(self, method: Json) -> TestCard:
        """Return the row of the table that a payment method stands for."""
        return BY_KEY[self._desk.store.parent(method["id"])]

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_methods/{id}: only what Stripe lets change, and only once attached."""
        before = self.get(identifier)
        if before["customer"] is None:
            raise invalid("You must save this PaymentMethod to a customer before you can update it.")
        method = {**before, "card": {**before["card"], **_expiry(params)}}
        if params.get("billing_details"):
            method["billing_details"] = _billing(before["billing_details"], params["billing_details"])
        merge_metadata(method, params.get("metadata"))
        self._desk.store.put(method)
        self._desk.events.emit("payment_method.updated", method, before=differences(before, method))
        return method

    def attach(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_methods/{id}/attach."""
        if "customer" not in params:
            raise invalid("Missing required param: customer.", code="parameter_missing", param="customer")
        customer = self._desk.live_customer(params["customer"])
        method = self.get(identifier)
        if method["customer"] not in (None, customer["id"]):
            raise invalid("The payment method you provided has already been attached to a customer.")
        if self._spent(method) is False:
            raise invalid(_NOT_ATTACHABLE)
        test = self.test_card(method)
        if test.attach_declines:
            raise card_error(test, method)
        return self.keep(method, customer["id"])

    def keep(self, method: Json, customer: str) -> Json:
        """Put a payment method of nobody into a customer's file. One that found an owner, or was used up, while its cardholder
        was asked stays as it is."""
        if method["customer"] is None and self._spent(method) is not False:
            method["customer"] = customer
            self._desk.store.put(method)
            self._desk.store.db.execute("DELETE FROM spent WHERE payment_method = ?", (method["id"],))
            self._desk.events.emit("payment_method.attached", method)
        return method

    def set_up(self, method: Json) -> None:
        """Remember that the cardholder agreed to later charges without them."""
        self._desk.store.db.execute("INSERT OR IGNORE INTO set_up VALUES (?)", (method["id"],))

    def is_set_up(self, method: Json) -> bool:
        """Say whether the cardholder agreed to charges without them."""
        row = self._desk.store.db.execute("SELECT 1 FROM set_up WHERE payment_method = ?", (method["id"],)).fetchone()
        return row is not None

    def usable(self, identifier: str, customer: str | None, noun: str, carried: Json) -> Json:
        """Return a payment method that an intent of `customer` may use. Raises Stripe's 400 for another customer's, and for one
        that was used up (https://docs.stripe.com/payments/payment-methods). `carried`: the intent, for the error."""
        method = self.get(identifier)
        owner = method["customer"]
        if owner is None:
            if self._spent(method) is not None:
                raise invalid(_USED_UP, **carried)
        elif customer is None and noun == "PaymentIntent":
            raise invalid(
                f"The `payment_method` parameter supplied {method['id']} belongs to the Customer {owner}. Please include the "
                "Customer in the `customer` parameter on the PaymentIntent.",
                code="parameter_missing",
                # Stripe names the parameter of its older API here.
                param="source",
                **carried,
            )
        elif customer is None:
            raise invalid(
                f"The payment method supplied ({method['id']}) belongs to the Customer {owner}. Please include the Customer in "
                f"the `customer` parameter on the {noun}.",
                param="payment_method",
                **carried,
            )
        elif owner != customer:
            raise invalid(
                f"The PaymentMethod {method['id']} does not belong to the Customer you supplied {customer}. Please use this "
                "PaymentMethod with the Customer that it belongs to instead.",
                param="payment_method",
                **carried,
            )
        return method

    def spend(self, method: Json, *, attachable: bool) -> None:
        """Use up a payment method of no customer: it was charged, declined or not. It may still be attached where the payment said
        so with `setup_future_usage` (https://docs.stripe.com/api/payment_intents/create#create_payment_intent-setup_future_usage)."""
        if method["customer"] is None:
            self._desk.store.db.execute("INSERT OR REPLACE INTO spent VALUES (?, ?)", (method["id"], attachable))

    def _spent(self, method: Json) -> bool | None:
        """Return whether a used-up payment method may still be attached; None for one that is not used up."""
        row = self._desk.store.db.execute(
            "SELECT attachable FROM spent WHERE payment_method = ?", (method["id"],)
        ).fetchone()
        return None if row is None else bool(row[0])

    def let_go(self, method: Json) -> Json:
        """Take a payment method off its customer, for good (https://docs.stripe.com/api/payment_methods/detach)."""
        freed = self._desk.store.put({**method, "customer": None})
        self.spend(freed, attachable=False)
        return freed

    def detach(self, identifier: str) -> Json:
        """POST /v1/payment_methods/{id}/detach."""
        before = self.get(identifier)
        if before["customer"] is None:
            raise invalid("The payment method you provided is not attached to a customer so detachment is impossible.")
        method = self.let_go(before)
        self._desk.events.emit("payment_method.detached", method, before=differences(before, method))
        return method

    def _mint(self, test: TestCard, params: Json) -> Json:
        card = {
            "brand": test.brand,
            "checks": _checks(test, params),
            "country": test.country,
            "display_brand": test.brand,
            "exp_month": 12,
            "exp_year": 2034,
            "fingerprint": f"fp{test.number[-10:]}",
            "funding": test.funding,
            "generated_from": None,
            "last4": test.number[-4:],
            "networks": {"available": [test.brand, *filter(None, [test.co_brand])], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": test.secure is not Secure.NOT_SUPPORTED},
            "wallet": None,
        }
        nobody = {"address": NO_ADDRESS, "email": None, "name": None, "phone": None, "tax_id": None}
        return self._desk.store.put(
            {
                "id": new_id("pm"),
                "object": "payment_method",
                "allow_redisplay": params.get("allow_redisplay", "unspecified"),
                "billing_details": _billing(nobody, params.get("billing_details") or {}),
                "card": {**card, **_expiry(params)},
                "created": self._desk.clock.now(),
                "customer": None,
                "customer_account": None,
                "livemode": False,
                "metadata": fresh_metadata(params.get("metadata")),
                "type": "card",
            },
            parent=test.key,
        )


def _expiry(params: Json) -> Json:
    card = params.get("card") or {}
    return {name: card[name] for name in ("exp_month", "exp_year") if name in card}


def _checks(test: TestCard, params: Json) -> Json:
    """What the issuer says of the security code and the address; what was not given is not checked."""
    is_static = "card" not in params
    address = (params.get("billing_details") or {}).get("address") or {}
    return {
        "address_line1_check": test.line1_check if is_static or address.get("line1") else None,
        "address_postal_code_check": test.zip_check if is_static or address.get("postal_code") else None,
        "cvc_check": test.cvc_check if is_static or "cvc" in params["card"] else None,
    }


def _check_expiry(card: Json, now: int) -> None:
    if not 1 <= card["exp_month"] <= 12:
        raise _card_field("Your card's expiration month is invalid.", "invalid_expiry_month", "exp_month")
    # A year of 365.2425 days is exact enough to tell a past year from this one.
    if not 0 <= card["exp_year"] - (1970 + int(now / 31_556_952)) <= 50:
        raise _card_field("Your card's expiration year is invalid.", "invalid_expiry_year", "exp_year")
    if not re.fullmatch(r"[0-9]{3,4}", card.get("cvc", "123")):
        raise _card_field("Your card's security code is invalid.", "invalid_cvc", "cvc")


def _card_field(message: str, code: str, param: str) -> StripeError:
    return StripeError(402, "card_error", message, code=code, param=param)


def _refused_number(number: str) -> StripeError:
    """A real card is told apart from a mistyped one, and neither is ever stored or repeated
    (https://docs.stripe.com/declines/codes, `test_mode_live_card`)."""
    if re.fullmatch(r"[0-9]{12,19}", number) and is_luhn_valid(number):
        message = "Your card was declined. Your request was in test mode, but used a non test (live) card."
        return StripeError(402, "card_error", message, code="card_declined", decline_code="test_mode_live_card")
    return _card_field("Your card number is incorrect.", "incorrect_number", "number")


def _billing(before: Json, given: Json) -> Json:
    plain = {key: value or None for key, value in given.items() if key != "address"}
    address = {**before["address"], **(given.get("address") or {})}
    return {**before, **plain, "address": address}
