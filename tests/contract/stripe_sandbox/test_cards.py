"""Each card of Stripe's testing page does what the page says."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from sandbox.stripe.cards import ANY_DECLINE, BRANDS, BY_COUNTRY, BY_ID, CARDS, TestCard, is_luhn_valid
from sandbox.stripe.declines import DECLINES
from tests.support.sandbox import SandboxProcess, by_card, customer_with, error_of

DECLINED_ON_ATTACH = [
    ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline", "try_again_later"),
    ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds", "try_again_later"),
    ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card", "do_not_try_again"),
    ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", "stolen_card", "do_not_try_again"),
    ("pm_card_chargeDeclinedExpiredCard", "expired_card", None, "confirm_card_data"),
    ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None, "confirm_card_data"),
    ("pm_card_chargeDeclinedProcessingError", "processing_error", None, "try_again_later"),
    ("pm_card_visa_chargeDeclinedVelocityLimitExceeded", "card_declined", "card_velocity_exceeded", "try_again_later"),
    ("pm_card_radarBlock", "card_declined", "fraudulent", None),
]
"""As https://docs.stripe.com/testing#declined-payments has them."""


async def pay(client: stripe.StripeClient, card: str, **params: Any) -> stripe.PaymentIntent:
    """Pay as a guest."""
    base = by_card(amount=1000, currency="usd", payment_method=card, confirm=True)
    return await client.v1.payment_intents.create_async(base | params)


@pytest.mark.parametrize("card", [c for c in CARDS if c.id and not c.decline], ids=lambda card: card.id)
async def test_each_card_without_a_decline_pays(sandbox: SandboxProcess, card: TestCard) -> None:
    client = sandbox.client()
    if card.id == "pm_card_threeDSecureRequiredProcessingError":
        with pytest.raises(stripe.CardError):
            await pay(client, card.id)
        return
    for identifier in card.ids:
        intent = await pay(client, identifier)
        if intent.status == "requires_action":
            sandbox.switch(f"payment_intents/{intent.id}/authenticate", succeed=True)
        read = await client.v1.payment_intents.retrieve_async(intent.id, {"expand": ["latest_charge"]})
        assert read.status == "succeeded"
        charge: Any = read.latest_charge
        seen = charge.payment_method_details.card
        assert (seen.brand, seen.funding, seen.country) == (card.brand, card.funding, card.country)
        assert seen.last4 == card.number[-4:]
        assert charge.outcome.risk_level == card.risk
        assert seen.checks.address_postal_code_check == card.zip_check


@pytest.mark.parametrize(("card", "code", "decline_code", "advice"), DECLINED_ON_ATTACH)
async def test_each_declining_card_declines_as_documented(
    sandbox: SandboxProcess, card: str, code: str, decline_code: str | None, advice: str | None
) -> None:
    client = sandbox.client()
    customer = await client.v1.customers.create_async({})
    with pytest.raises(stripe.CardError) as attached:
        await client.v1.payment_methods.attach_async(card, {"customer": customer.id})
    with pytest.raises(stripe.CardError) as charged:
        await pay(client, card)
    for declined in (attached.value, charged.value):
        error = error_of(declined)
        assert (declined.http_status, error["type"], error["code"]) == (402, "card_error", code)
        assert (error.get("decline_code"), error.get("advice_code")) == (decline_code, advice)
        assert error["doc_url"].endswith(code.replace("_", "-"))
    intent = error_of(charged.value)["payment_intent"]
    assert intent["status"] == "requires_payment_method"
    charge = sandbox.fetch(f"/v1/charges/{error_of(charged.value)['charge']}")
    assert (charge["status"], charge["failure_code"]) == ("failed", code)
    is_blocked = card == "pm_card_radarBlock"
    outcome = charge["outcome"]
    assert outcome["type"] == ("blocked" if is_blocked else "issuer_declined")
    assert outcome["reason"] == ("highest_risk_level" if is_blocked else decline_code or code)
    assert outcome["advice_code"] == advice
    network = error_of(charged.value).get("network_decline_code")
    assert outcome["network_decline_code"] == network
    assert (network is None) == is_blocked


async def test_a_card_that_was_attached_declines_each_charge(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_chargeCustomerFail")
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            await pay(client, method, customer=customer)
        assert error_of(declined.value)["decline_code"] == "generic_decline"


@pytest.mark.parametrize("code", DECLINES)
async def test_any_documented_decline_can_be_had(sandbox: SandboxProcess, code: str) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, f"pm_sandbox_decline_{code}")
    with pytest.raises(stripe.CardError) as declined:
        await pay(client, method, customer=customer)
    error = error_of(declined.value)
    assert code in (error["code"], error.get("decline_code"))
    assert error["message"]
    read = await client.v1.payment_intents.retrieve_async(error["payment_intent"]["id"])
    assert read.last_payment_error is not None
    assert read.last_payment_error.code == error["code"]


@pytest.mark.parametrize(
    ("card", "code", "decline_code", "param"),
    [
        ({"number": "4242424242424241"}, "incorrect_number", None, "number"),
        ({"number": "4111111111111111"}, "card_declined", "test_mode_live_card", None),
        ({"number": "4242424242424242", "exp_month": 13}, "invalid_expiry_month", None, "exp_month"),
        ({"number": "4242424242424242", "exp_year": 1995}, "invalid_expiry_year", None, "exp_year"),
        ({"number": "4242424242424242", "cvc": "99"}, "invalid_cvc", None, "cvc"),
    ],
)
async def test_invalid_data_is_refused(
    sandbox: SandboxProcess, card: Any, code: str, decline_code: str | None, param: str | None
) -> None:
    client = sandbox.client()
    given = {"exp_month": 12, "exp_year": 2034, "cvc": "123"} | card
    with pytest.raises(stripe.CardError) as refused:
        await client.v1.payment_methods.create_async({"type": "card", "card": given})
    assert (refused.value.code, refused.value.param) == (code, param)
    assert error_of(refused.value).get("decline_code") == decline_code


@pytest.mark.parametrize("card", [*BRANDS, *BY_COUNTRY], ids=lambda card: card.number)
async def test_a_card_is_known_by_its_number(sandbox: SandboxProcess, card: TestCard) -> None:
    client = sandbox.client()
    method = await client.v1.payment_methods.create_async(
        {"type": "card", "card": {"number": card.number, "exp_month": 12, "exp_year": 2034, "cvc": "123"}}
    )
    assert method.card is not None
    assert (method.card.brand, method.card.last4) == (card.brand, card.number[-4:])


async def test_checks_tell_and_the_charge_goes_through(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for card, name in (
        ("pm_card_cvcCheckFail", "cvc_check"),
        ("pm_card_avsZipFail", "address_postal_code_check"),
        ("pm_card_avsLine1Fail", "address_line1_check"),
    ):
        intent = await pay(client, card, expand=["latest_charge"])
        charge: Any = intent.latest_charge
        assert charge.payment_method_details.card.checks[name] == "fail"


async def test_money_that_skips_the_pending_balance_is_available_at_once(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for card, status in (("pm_card_bypassPending", "available"), ("pm_card_visa", "pending")):
        intent = await pay(client, card, expand=["latest_charge.balance_transaction"])
        charge: Any = intent.latest_charge
        assert charge.balance_transaction.status == status


def test_every_number_has_its_check_digit_and_every_id_is_one_cards() -> None:
    assert [card.number for card in CARDS if not is_luhn_valid(card.number)] == []
    assert len({card.number for card in CARDS}) == len(CARDS)
    assert len(BY_ID) == sum(len(card.ids) for card in (*CARDS, *ANY_DECLINE))
