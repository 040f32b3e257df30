"""3-D Secure: what a confirm answers, the bank's page, the way back, and what the webhooks tell."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import stripe

from sandbox.stripe.pages import shown
from tests.support.sandbox import SandboxProcess, by_card, error_of, eventually

BACK = "https://shop.example/orders/7?lang=de#paid"
SECURE = "pm_card_authenticationRequired"


async def waiting(client: stripe.StripeClient, **params: Any) -> stripe.PaymentIntent:
    """Return a payment that waits for its cardholder."""
    base = by_card(amount=100, currency="usd", payment_method=SECURE, confirm=True)
    intent = await client.v1.payment_intents.create_async(base | params)
    assert intent.status == "requires_action"
    assert intent.latest_charge is None
    return intent


def redirect_of(intent: stripe.PaymentIntent | stripe.SetupIntent) -> Any:
    """Return where the cardholder has to go."""
    assert intent.next_action is not None
    assert intent.next_action.type == "redirect_to_url"
    return intent.next_action.redirect_to_url


async def test_with_a_return_url_the_cardholder_is_redirected(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    redirect = redirect_of(await waiting(client, return_url=BACK))
    assert redirect.return_url == BACK
    page = sandbox.page(redirect.url)
    assert page.headers["content-type"].startswith("text/html")
    assert "1.00 USD" in page.text
    assert "visa ending in 3184" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert ">Complete</button>" in page.text
    assert ">Fail</button>" in page.text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(5, "usd", "0.05 USD"), (123456, "eur", "1,234.56 EUR"), (1200, "jpy", "1,200 JPY"), (1230, "kwd", "1.230 KWD")],
)
def test_an_amount_is_written_as_people_write_it(amount: int, currency: str, text: str) -> None:
    assert shown(amount, currency) == text


async def test_what_the_page_shows_is_no_markup(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK, description="<script>alert(1)</script>")
    page = sandbox.page(redirect_of(intent).url)
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_for_stripes_script_there_is_no_redirect(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK, use_stripe_sdk=True)
    assert intent.next_action is not None
    assert intent.next_action.type == "use_stripe_sdk"
    assert not hasattr(intent.next_action, "redirect_to_url")
    action: Any = intent.next_action.use_stripe_sdk
    assert action["type"] == "three_d_secure_redirect"
    assert sandbox.page(action["stripe_js"]).is_success


async def test_without_a_return_url_the_script_is_meant_and_the_page_is_there_all_the_same(
    sandbox: SandboxProcess,
) -> None:
    client = sandbox.client()
    intent = await waiting(client)
    assert intent.next_action is not None
    assert intent.next_action.type == "use_stripe_sdk"
    redirect: Any = intent.next_action.redirect_to_url
    assert redirect.return_url is None
    done = sandbox.page(redirect.url, succeed="true")
    assert (done.status_code, "close this page" in done.text) == (200, True)
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"


@pytest.mark.parametrize(
    ("button", "status", "told", "event"),
    [
        ("true", "succeeded", "succeeded", "payment_intent.succeeded"),
        ("false", "requires_payment_method", "failed", "payment_intent.payment_failed"),
    ],
)
async def test_the_cardholder_comes_back_with_stripes_parameters(
    sandbox: SandboxProcess, button: str, status: str, told: str, event: str
) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK, metadata={"payment": "pay_1"})
    answer = sandbox.page(redirect_of(intent).url, succeed=button)
    assert answer.status_code == 303
    back = urlsplit(answer.headers["location"])
    assert (back.scheme, back.netloc, back.path, back.fragment) == ("https", "shop.example", "/orders/7", "paid")
    assert parse_qs(back.query) == {
        "lang": ["de"],
        "payment_intent": [intent.id],
        "payment_intent_client_secret": [intent.client_secret],
        "redirect_status": [told],
    }
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    assert (read.status, read.next_action) == (status, None)
    expected = {"payment_intent.created", "payment_intent.requires_action", event}
    eventually(lambda: set(sandbox.hooks.types(intent.id)) == expected, "the webhooks")
    assert {hook.verified().data.object.metadata["payment"] for hook in sandbox.hooks.about(intent.id)} == {"pay_1"}


async def test_a_failed_authentication_says_so_and_another_card_goes_through(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK)
    sandbox.page(redirect_of(intent).url, succeed="false")
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    error = read.last_payment_error
    assert error is not None
    assert (error.code, error.type) == ("payment_intent_authentication_failure", "invalid_request_error")
    assert error.payment_method is not None
    assert read.latest_charge is None
    assert read.payment_method is None
    paid = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa", "return_url": BACK}
    )
    assert (paid.status, paid.last_payment_error) == ("succeeded", None)


async def test_an_authenticated_charge_says_how(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK)
    sandbox.page(redirect_of(intent).url, succeed="true")
    charge = sandbox.fetch(f"/v1/charges?payment_intent={intent.id}")["data"][0]
    secured = charge["payment_method_details"]["card"]["three_d_secure"]
    assert (secured["authentication_flow"], secured["result"]) == ("challenge", "authenticated")


async def test_a_card_declines_after_its_cardholder_authenticated(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for card, code in (
        ("pm_card_authenticationRequiredChargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_threeDSecureRequiredChargeDeclined", "generic_decline"),
    ):
        intent = await waiting(client, return_url=BACK, payment_method=card)
        answer = sandbox.page(redirect_of(intent).url, succeed="true")
        assert parse_qs(urlsplit(answer.headers["location"]).query)["redirect_status"] == ["failed"]
        error = (await client.v1.payment_intents.retrieve_async(intent.id)).last_payment_error
        assert error is not None
        assert (error.code, error.decline_code) == ("card_declined", code)


async def test_an_issuer_that_cannot_be_asked_declines(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    params = by_card(amount=100, currency="usd", confirm=True, return_url=BACK)
    with pytest.raises(stripe.CardError) as declined:
        await client.v1.payment_intents.create_async(
            params | {"payment_method": "pm_card_threeDSecureRequiredProcessingError"}
        )
    assert declined.value.code == "card_declined"


@pytest.mark.parametrize(
    ("card", "asked", "result"),
    [
        ("pm_card_threeDSecureOptional", "automatic", None),
        ("pm_card_visa", "any", "attempt_acknowledged"),
        ("pm_card_visa", "automatic", None),
        ("pm_card_amex_threeDSecureNotSupported", "any", None),
        ("pm_card_threeDSecureOptionalProcessingError", "automatic", None),
    ],
)
async def test_a_payment_that_asks_for_three_d_secure_goes_on_where_the_card_has_none(
    sandbox: SandboxProcess, card: str, asked: str, result: str | None
) -> None:
    client = sandbox.client()
    params = by_card(amount=100, currency="usd", confirm=True, return_url=BACK, payment_method=card)
    params["payment_method_options"] = {"card": {"request_three_d_secure": asked}}
    intent = await client.v1.payment_intents.create_async(params)
    assert intent.status == "succeeded"
    charge = sandbox.fetch(f"/v1/charges/{intent.latest_charge}")
    secured = charge["payment_method_details"]["card"]["three_d_secure"]
    assert (secured and secured["result"]) == result


async def test_a_payment_may_ask_for_three_d_secure(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    options = {"card": {"request_three_d_secure": "challenge"}}
    await waiting(client, payment_method="pm_card_threeDSecureOptional", payment_method_options=options)
    with pytest.raises(stripe.CardError):
        await waiting(
            client, payment_method="pm_card_threeDSecureOptionalProcessingError", payment_method_options=options
        )


async def test_an_intent_that_may_redirect_wants_a_return_url(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await client.v1.payment_intents.create_async({"amount": 100, "currency": "usd"})
    assert intent.automatic_payment_methods is not None
    with pytest.raises(stripe.InvalidRequestError, match="you must provide a `return_url`") as refused:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    error = error_of(refused.value)
    assert (refused.value.http_status, error["payment_intent"]["id"]) == (400, intent.id)
    with pytest.raises(stripe.InvalidRequestError, match="Not a valid URL") as malformed:
        await client.v1.payment_intents.confirm_async(
            intent.id, {"payment_method": "pm_card_visa", "return_url": "shop"}
        )
    assert malformed.value.code == "url_invalid"
    paid = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa", "return_url": BACK}
    )
    assert paid.status == "succeeded"
    never: Any = {"enabled": True, "allow_redirects": "never"}
    params: Any = {"amount": 100, "currency": "usd", "automatic_payment_methods": never}
    params |= {"payment_method": "pm_card_visa", "confirm": True}
    assert (await client.v1.payment_intents.create_async(params)).status == "succeeded"


async def test_a_button_pressed_twice_charges_once(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK)
    url = redirect_of(intent).url
    assert sandbox.page(url, succeed="true").status_code == 303
    late = sandbox.page(url, succeed="false")
    assert (late.status_code, "Nothing to do: succeeded" in late.text) == (200, True)
    assert "Nothing to do: succeeded" in sandbox.page(url).text
    assert sandbox.stats()["paid_charges"][intent.id] == 1


async def test_who_waits_may_be_asked_again_or_canceled(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK)
    again = await client.v1.payment_intents.confirm_async(intent.id, {"return_url": "https://shop.example/second"})
    assert redirect_of(again).return_url == "https://shop.example/second"
    canceled = await client.v1.payment_intents.cancel_async(intent.id)
    assert (canceled.status, canceled.next_action) == ("canceled", None)


async def test_a_manual_capture_waits_for_the_cardholder_first(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await waiting(client, return_url=BACK, capture_method="manual")
    answer = sandbox.page(redirect_of(intent).url, succeed="true")
    assert parse_qs(urlsplit(answer.headers["location"]).query)["redirect_status"] == ["succeeded"]
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    assert (read.status, read.amount_capturable) == ("requires_capture", 100)
