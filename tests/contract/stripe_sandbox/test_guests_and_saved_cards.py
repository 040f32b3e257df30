"""Whose card may pay what: guests, customers, cards saved by a payment, and payments without the cardholder."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.support.sandbox import SandboxProcess, by_card, customer_with, error_of

USED_UP = "It may not be used again"


async def a_method(client: stripe.StripeClient, card: str = "pm_card_visa") -> str:
    """Return a payment method of no customer."""
    return (await client.v1.payment_methods.retrieve_async(card)).id


async def test_a_guest_pays_once_with_a_card_of_no_customer(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    method = await a_method(client)
    params = by_card(amount=100, currency="usd", payment_method=method, confirm=True)
    intent = await client.v1.payment_intents.create_async(params)
    assert (intent.status, intent.customer, intent.payment_method) == ("succeeded", None, method)
    with pytest.raises(stripe.InvalidRequestError, match=USED_UP) as again:
        await client.v1.payment_intents.create_async(params)
    assert (again.value.http_status, again.value.code) == (400, None)
    customer = await client.v1.customers.create_async({})
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        await client.v1.payment_methods.attach_async(method, {"customer": customer.id})
    assert (await client.v1.payment_methods.retrieve_async(method)).customer is None


async def test_a_decline_uses_a_guests_card_up_too(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    method = await a_method(client, "pm_card_chargeCustomerFail")
    intent = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd"))
    with pytest.raises(stripe.CardError):
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
    with pytest.raises(stripe.InvalidRequestError, match=USED_UP) as again:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
    assert error_of(again.value)["payment_intent"]["id"] == intent.id
    paid = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "succeeded"


async def test_a_customers_payment_does_not_save_an_unsaved_card(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await client.v1.customers.create_async({}), await a_method(client)
    params = by_card(amount=100, currency="usd", customer=customer.id, payment_method=method, confirm=True)
    assert (await client.v1.payment_intents.create_async(params)).customer == customer.id
    assert (await client.v1.payment_methods.retrieve_async(method)).customer is None
    with pytest.raises(stripe.InvalidRequestError, match=USED_UP):
        await client.v1.payment_intents.create_async(params)


@pytest.mark.parametrize("usage", ["on_session", "off_session"])
@pytest.mark.parametrize("at", ["create", "confirm"])
async def test_a_payment_that_succeeds_saves_its_card_where_it_said_so(
    sandbox: SandboxProcess, usage: str, at: str
) -> None:
    client = sandbox.client()
    customer, method = await client.v1.customers.create_async({}), await a_method(client)
    saves: Any = {"setup_future_usage": usage}
    params = by_card(amount=100, currency="usd", customer=customer.id, payment_method=method)
    intent = await client.v1.payment_intents.create_async(params | (saves if at == "create" else {}))
    assert (await client.v1.payment_methods.retrieve_async(method)).customer is None
    intent = await client.v1.payment_intents.confirm_async(intent.id, saves if at == "confirm" else {})
    assert (intent.status, intent.setup_future_usage) == ("succeeded", usage)
    saved = await client.v1.customers.payment_methods.list_async(customer.id)
    assert [one.id for one in saved.data] == [method]
    again = by_card(amount=100, currency="usd", customer=customer.id, payment_method=method, confirm=True)
    assert (await client.v1.payment_intents.create_async(again)).status == "succeeded"


async def test_a_payment_that_fails_saves_nothing(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await client.v1.customers.create_async({}), await a_method(client, "pm_card_chargeCustomerFail")
    params = by_card(amount=100, currency="usd", customer=customer.id, setup_future_usage="off_session")
    with pytest.raises(stripe.CardError):
        await client.v1.payment_intents.create_async(params | {"payment_method": method, "confirm": True})
    assert (await client.v1.payment_methods.retrieve_async(method)).customer is None


async def test_a_guests_card_is_attached_later_where_the_payment_said_so(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    method = await a_method(client)
    params = by_card(amount=100, currency="usd", payment_method=method, confirm=True)
    await client.v1.payment_intents.create_async(params | {"setup_future_usage": "off_session"})
    with pytest.raises(stripe.InvalidRequestError, match=USED_UP):
        await client.v1.payment_intents.create_async(params)
    customer = await client.v1.customers.create_async({})
    await client.v1.payment_methods.attach_async(method, {"customer": customer.id})
    assert (await client.v1.payment_intents.create_async(params | {"customer": customer.id})).status == "succeeded"


async def test_another_customers_card_is_refused(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    owner, method = await customer_with(client, "pm_card_visa")
    other = await client.v1.customers.create_async({})
    params = by_card(amount=100, currency="usd", customer=other.id)
    belongs = f"The PaymentMethod {method} does not belong to the Customer you supplied {other.id}"
    with pytest.raises(stripe.InvalidRequestError, match=belongs) as created:
        await client.v1.payment_intents.create_async(params | {"payment_method": method})
    assert (created.value.http_status, created.value.param, created.value.code) == (400, "payment_method", None)
    intent = await client.v1.payment_intents.create_async(params)
    with pytest.raises(stripe.InvalidRequestError, match=belongs) as confirmed:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
    assert error_of(confirmed.value)["payment_intent"]["payment_method"] is None
    with pytest.raises(stripe.InvalidRequestError, match=belongs):
        await client.v1.payment_intents.update_async(intent.id, {"payment_method": method})
    guest = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd"))
    with pytest.raises(stripe.InvalidRequestError, match=f"belongs to the Customer {owner}. Please include") as unnamed:
        await client.v1.payment_intents.confirm_async(guest.id, {"payment_method": method})
    assert (unnamed.value.code, unnamed.value.param) == ("parameter_missing", "source")


async def test_a_customer_is_set_once(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    first, second = [(await client.v1.customers.create_async({})).id for _ in range(2)]
    intent = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd"))
    assert (await client.v1.payment_intents.update_async(intent.id, {"customer": first})).customer == first
    with pytest.raises(stripe.InvalidRequestError, match="You cannot modify `customer`"):
        await client.v1.payment_intents.update_async(intent.id, {"customer": second})


async def test_a_detached_card_is_of_no_more_use(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_visa")
    await client.v1.payment_methods.detach_async(method)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        await client.v1.payment_methods.attach_async(method, {"customer": customer})
    with pytest.raises(stripe.InvalidRequestError, match=USED_UP):
        await client.v1.payment_intents.create_async(
            by_card(amount=100, currency="usd", customer=customer, payment_method=method, confirm=True)
        )


@pytest.mark.parametrize(
    "card", ["pm_card_authenticationRequired", "pm_card_authenticationRequiredOnSetup", "pm_card_threeDSecure2Required"]
)
async def test_without_the_cardholder_a_card_that_must_authenticate_is_declined(
    sandbox: SandboxProcess, card: str
) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, card)
    params = by_card(amount=100, currency="usd", customer=customer, payment_method=method)
    intent = await client.v1.payment_intents.create_async(params)
    with pytest.raises(stripe.CardError) as declined:
        await client.v1.payment_intents.confirm_async(intent.id, {"off_session": True})
    error = error_of(declined.value)
    assert (declined.value.http_status, error["type"]) == (402, "card_error")
    assert (error["code"], error["decline_code"]) == ("authentication_required",) * 2
    assert error["payment_method"]["id"] == method
    assert error["payment_intent"]["status"] == "requires_payment_method"
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    assert (read.status, read.payment_method) == ("requires_payment_method", None)
    assert read.last_payment_error is not None
    assert read.last_payment_error.code == "authentication_required"
    # With the cardholder, the same card pays: the customer comes back on-session.
    waiting = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
    assert waiting.status == "requires_action"
    sandbox.switch(f"payment_intents/{intent.id}/authenticate", succeed=True)
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"


@pytest.mark.parametrize("off_session", [True, "one_off", "recurring"])
async def test_a_card_set_up_for_it_pays_without_the_cardholder(
    sandbox: SandboxProcess, off_session: bool | str
) -> None:
    client = sandbox.client()
    customer = (await client.v1.customers.create_async({})).id
    method = await a_method(client, "pm_card_authenticationRequiredOnSetup")
    params = by_card(amount=100, currency="usd", customer=customer, payment_method=method)
    first = await client.v1.payment_intents.create_async(
        params | {"setup_future_usage": "off_session", "confirm": True}
    )
    assert first.status == "requires_action"
    sandbox.switch(f"payment_intents/{first.id}/authenticate", succeed=True)
    off = await client.v1.payment_intents.create_async(params | {"confirm": True, "off_session": off_session})
    assert off.status == "succeeded"
    # The card stays one that is always authenticated on-session.
    on = await client.v1.payment_intents.create_async(params | {"confirm": True})
    assert on.status == "requires_action"


async def test_a_card_saved_for_the_cardholders_presence_is_not_set_up_for_their_absence(
    sandbox: SandboxProcess,
) -> None:
    client = sandbox.client()
    customer = (await client.v1.customers.create_async({})).id
    method = await a_method(client, "pm_card_authenticationRequiredOnSetup")
    params = by_card(amount=100, currency="usd", customer=customer, payment_method=method, confirm=True)
    first = await client.v1.payment_intents.create_async(params | {"setup_future_usage": "on_session"})
    sandbox.switch(f"payment_intents/{first.id}/authenticate", succeed=True)
    with pytest.raises(stripe.CardError) as declined:
        await client.v1.payment_intents.create_async(params | {"off_session": True})
    assert declined.value.code == "authentication_required"


async def test_a_card_that_comes_set_up_asks_only_the_cardholder_who_is_there(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_authenticationRequiredSetupForOffSession")
    params = by_card(amount=100, currency="usd", customer=customer, payment_method=method, confirm=True)
    assert (await client.v1.payment_intents.create_async(params)).status == "requires_action"
    assert (await client.v1.payment_intents.create_async(params | {"off_session": True})).status == "succeeded"


async def test_off_session_is_a_matter_of_the_confirm(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd", off_session=True))
    assert refused.value.param == "off_session"
