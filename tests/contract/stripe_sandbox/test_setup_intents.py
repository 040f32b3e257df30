"""Setup intents: cards saved without a payment."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import stripe

from tests.support.sandbox import SandboxProcess, by_card, customer_with, error_of, eventually

BACK = "https://shop.example/cards"
ON_SETUP = "pm_card_authenticationRequiredOnSetup"


async def opened(client: stripe.StripeClient, **params: Any) -> stripe.SetupIntent:
    """Return a setup of a new customer."""
    customer = await client.v1.customers.create_async({})
    base = by_card(customer=customer.id, usage="off_session", metadata={"setup": "set_1"})
    return await client.v1.setup_intents.create_async(base | params)


async def test_a_setup_that_succeeds_attaches_the_card(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    setup = await opened(client)
    assert (setup.status, setup.usage, setup.payment_method_types) == (
        "requires_payment_method",
        "off_session",
        ["card"],
    )
    assert (setup.client_secret or "").startswith(f"{setup.id}_secret_")
    done = await client.v1.setup_intents.confirm_async(setup.id, {"payment_method": "pm_card_visa", "return_url": BACK})
    assert (done.status, done.next_action, done.last_setup_error) == ("succeeded", None, None)
    saved = await client.v1.customers.payment_methods.list_async(str(setup.customer))
    assert [one.id for one in saved.data] == [done.payment_method]
    eventually(
        lambda: set(sandbox.hooks.types(setup.id)) == {"setup_intent.created", "setup_intent.succeeded"}, "the webhooks"
    )
    assert "payment_method.attached" in sandbox.hooks.types(str(done.payment_method))


@pytest.mark.parametrize(
    ("button", "status", "told", "event"),
    [
        ("true", "succeeded", "succeeded", "setup_intent.succeeded"),
        ("false", "requires_payment_method", "failed", "setup_intent.setup_failed"),
    ],
)
async def test_the_bank_asks_the_cardholder(
    sandbox: SandboxProcess, button: str, status: str, told: str, event: str
) -> None:
    client = sandbox.client()
    setup = await opened(client)
    setup = await client.v1.setup_intents.confirm_async(setup.id, {"payment_method": ON_SETUP, "return_url": BACK})
    assert setup.status == "requires_action"
    assert setup.next_action is not None
    assert setup.next_action.type == "redirect_to_url"
    redirect: Any = setup.next_action.redirect_to_url
    assert redirect.return_url == BACK
    assert "later payments" in sandbox.page(redirect.url).text
    answer = sandbox.page(redirect.url, succeed=button)
    assert answer.status_code == 303
    assert parse_qs(urlsplit(answer.headers["location"]).query) == {
        "setup_intent": [setup.id],
        "setup_intent_client_secret": [setup.client_secret],
        "redirect_status": [told],
    }
    read = await client.v1.setup_intents.retrieve_async(setup.id)
    assert (read.status, read.next_action) == (status, None)
    method = await client.v1.payment_methods.retrieve_async(str(setup.payment_method))
    assert method.customer == (setup.customer if button == "true" else None)
    if button == "false":
        error = read.last_setup_error
        assert error is not None
        assert (error.code, error.type) == ("setup_intent_authentication_failure", "invalid_request_error")
    expected = {"setup_intent.created", "setup_intent.requires_action", event}
    eventually(lambda: set(sandbox.hooks.types(setup.id)) == expected, "the webhooks")
    assert {hook.verified().data.object.metadata["setup"] for hook in sandbox.hooks.about(setup.id)} == {"set_1"}


async def test_a_card_that_was_set_up_pays_without_its_cardholder(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for usage, pays in (("off_session", True), ("on_session", False)):
        setup = await opened(client, usage=usage, payment_method=ON_SETUP, confirm=True, return_url=BACK)
        sandbox.switch(f"setup_intents/{setup.id}/authenticate", succeed=True)
        params = by_card(amount=100, currency="usd", customer=setup.customer, payment_method=setup.payment_method)
        params |= {"confirm": True, "off_session": True}
        if pays:
            assert (await client.v1.payment_intents.create_async(params)).status == "succeeded"
        else:
            with pytest.raises(stripe.CardError):
                await client.v1.payment_intents.create_async(params)


@pytest.mark.parametrize(
    ("card", "code", "decline_code", "param"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline", None),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds", None),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card", None),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card", "exp_month"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "incorrect_cvc", None),
        ("pm_card_threeDSecureRequiredProcessingError", "card_declined", "generic_decline", None),
    ],
)
async def test_a_declined_setup_is_a_402_with_the_intent_inside(
    sandbox: SandboxProcess, card: str, code: str, decline_code: str, param: str | None
) -> None:
    client = sandbox.client()
    setup = await opened(client)
    with pytest.raises(stripe.CardError) as declined:
        await client.v1.setup_intents.confirm_async(setup.id, {"payment_method": card, "return_url": BACK})
    error = error_of(declined.value)
    assert (declined.value.http_status, error["type"]) == (402, "card_error")
    assert (error["code"], error["decline_code"], error.get("param")) == (code, decline_code, param)
    assert error["setup_intent"]["status"] == "requires_payment_method"
    read = await client.v1.setup_intents.retrieve_async(setup.id)
    assert (read.status, read.payment_method) == ("requires_payment_method", None)
    assert read.last_setup_error is not None
    assert read.last_setup_error.code == code
    eventually(lambda: "setup_intent.setup_failed" in sandbox.hooks.types(setup.id), "the webhook")
    again = await client.v1.setup_intents.confirm_async(
        setup.id, {"payment_method": "pm_card_visa", "return_url": BACK}
    )
    assert (again.status, again.last_setup_error) == ("succeeded", None)


async def test_a_card_that_declines_after_attaching_is_set_up_and_declines_later(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    setup = await opened(client, payment_method="pm_card_chargeCustomerFail", confirm=True)
    assert setup.status == "succeeded"
    params = by_card(amount=100, currency="usd", customer=setup.customer, payment_method=setup.payment_method)
    with pytest.raises(stripe.CardError):
        await client.v1.payment_intents.create_async(params | {"confirm": True, "off_session": True})


async def test_a_setup_is_canceled_and_then_over(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    setup = await opened(client)
    canceled = await client.v1.setup_intents.cancel_async(setup.id, {"cancellation_reason": "abandoned"})
    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    acts = (
        client.v1.setup_intents.cancel_async(setup.id),
        client.v1.setup_intents.confirm_async(setup.id, {"payment_method": "pm_card_visa", "return_url": BACK}),
        client.v1.setup_intents.update_async(setup.id, {"payment_method": "pm_card_visa"}),
    )
    for act in acts:
        with pytest.raises(stripe.InvalidRequestError, match="it has been canceled") as refused:
            await act
        assert refused.value.code == "setup_intent_unexpected_state"
        assert error_of(refused.value)["setup_intent"]["id"] == setup.id
    named = await client.v1.setup_intents.update_async(setup.id, {"description": "late"})
    assert named.description == "late"
    eventually(lambda: "setup_intent.canceled" in sandbox.hooks.types(setup.id), "the webhook")


async def test_a_setup_without_a_card_is_not_confirmed(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    setup = await opened(client)
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method") as refused:
        await client.v1.setup_intents.confirm_async(setup.id)
    assert refused.value.code == "setup_intent_unexpected_state"


async def test_another_customers_card_is_refused(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    owner, method = await customer_with(client, "pm_card_visa")
    setup = await opened(client)
    with pytest.raises(stripe.InvalidRequestError, match="does not belong to the Customer you supplied") as refused:
        await client.v1.setup_intents.confirm_async(setup.id, {"payment_method": method})
    assert refused.value.param == "payment_method"
    nobodys = await client.v1.setup_intents.create_async(by_card())
    with pytest.raises(stripe.InvalidRequestError, match=f"belongs to the Customer {owner}. Please include"):
        await client.v1.setup_intents.confirm_async(nobodys.id, {"payment_method": method})


async def test_a_card_that_found_an_owner_meanwhile_stays_with_it(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    setup = await opened(client, payment_method=ON_SETUP, confirm=True)
    owner = await client.v1.customers.create_async({})
    await client.v1.payment_methods.attach_async(str(setup.payment_method), {"customer": owner.id})
    sandbox.switch(f"setup_intents/{setup.id}/authenticate", succeed=True)
    assert (await client.v1.payment_methods.retrieve_async(str(setup.payment_method))).customer == owner.id


async def test_setups_are_read_and_listed(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    first = await opened(client, payment_method="pm_card_visa")
    second = await client.v1.setup_intents.create_async(by_card(customer=first.customer))
    listed = await client.v1.setup_intents.list_async({"customer": str(first.customer)})
    assert [one.id for one in listed.data] == [second.id, first.id]
    by_method = await client.v1.setup_intents.list_async({"payment_method": str(first.payment_method)})
    assert [one.id for one in by_method.data] == [first.id]
    read = await client.v1.setup_intents.retrieve_async(first.id, {"expand": ["payment_method", "customer"]})
    assert isinstance(read.payment_method, stripe.PaymentMethod)
    with pytest.raises(stripe.InvalidRequestError, match="No such setupintent: 'seti_none'") as absent:
        await client.v1.setup_intents.retrieve_async("seti_none")
    assert (absent.value.http_status, absent.value.param) == (404, "intent")


async def test_the_same_key_is_the_same_setup(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer = await client.v1.customers.create_async({})
    key: Any = {"idempotency_key": f"k-{os.urandom(8).hex()}"}
    first, second = [await client.v1.setup_intents.create_async(by_card(customer=customer.id), key) for _ in range(2)]
    assert first.id == second.id
    assert len((await client.v1.setup_intents.list_async({"customer": customer.id})).data) == 1
    declined: Any = {"idempotency_key": f"k-{os.urandom(8).hex()}"}
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await client.v1.setup_intents.confirm_async(
                first.id, {"payment_method": "pm_card_visa_chargeDeclined"}, declined
            )
    eventually(lambda: "setup_intent.setup_failed" in sandbox.hooks.types(first.id), "the webhook")
    assert sandbox.hooks.types(first.id).count("setup_intent.setup_failed") == 1
