"""The Python client against the running platform: outside and inside, in threads and in asyncio."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from paymesh.identity.v1 import identity_pb2, identity_pb2_grpc
from paymesh.notifications.v1 import notifications_pb2
from paymesh.payments.v1 import payments_pb2
from paymesh.type.v1 import money_pb2
from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc, proofs_pb2, wallets_pb2
from paymesh_client import (
    AsyncPaymesh,
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    NotFound,
    Paymesh,
    PaymeshError,
    PermissionDenied,
    PreconditionFailed,
    Retries,
    Unavailable,
)

from tests.support.stack import Shop, wait_for


def address_of(shop: Shop) -> str:
    """Return the edge as gRPC names it."""
    return shop.platform.edge.removeprefix("https://")


def outside(shop: Shop, credential: str, **more: Retries) -> Paymesh:
    """Return a client of the edge."""
    return Paymesh.outside(address_of(shop), credential=credential, ca_file=shop.platform.state["ca_file"], **more)


def order(shop: Shop, amount: int = 1000, **more: Any) -> payments_pb2.CreatePaymentRequest:
    """Return a request for money."""
    amount_message = money_pb2.Money(amount_minor=amount, currency="USD")
    return payments_pb2.CreatePaymentRequest(amount=amount_message, customer_id=shop.user_id, **more)


def test_a_purchase_from_threads(shop: Shop) -> None:
    with outside(shop, shop.seller_token) as seller, outside(shop, shop.customer_token) as customer:
        payment = seller.payments.CreatePayment(order(shop))
        confirm = payments_pb2.ConfirmPaymentRequest(payment_id=payment.id, payment_method_id=shop.method_id)
        paid = customer.payments.ConfirmPayment(confirm)
        assert paid.state == payments_pb2.Payment.SUCCEEDED
        assert seller.wallets.GetBalances(wallets_pb2.GetBalancesRequest()).merchant_id == shop.merchant_id


async def test_a_purchase_from_asyncio(shop: Shop) -> None:
    address, ca_file = address_of(shop), shop.platform.state["ca_file"]
    async with (
        AsyncPaymesh.outside(address, credential=shop.seller_token, ca_file=ca_file) as seller,
        AsyncPaymesh.outside(address, credential=shop.customer_token, ca_file=ca_file) as customer,
    ):
        made = [await seller.payments.CreatePayment(order(shop)) for _ in range(3)]
        confirm = payments_pb2.ConfirmPaymentRequest(payment_id=made[0].id, payment_method_id=shop.method_id)
        assert (await customer.payments.ConfirmPayment(confirm)).state == payments_pb2.Payment.SUCCEEDED
        with pytest.raises(PreconditionFailed) as refused:
            await customer.payments.ConfirmPayment(confirm)
        assert refused.value.reason == "PAYMENT_STATE_INVALID"
        request = payments_pb2.ListPaymentsRequest(page_size=2)
        found = []
        async for payment in seller.pages(seller.payments.ListPayments, request):
            found.append(payment.id)
            if len(found) == 5:
                break
        assert found[:3] == [payment.id for payment in reversed(made)]


def test_errors_say_what_is_wrong_and_under_which_request(shop: Shop) -> None:
    with outside(shop, shop.seller_token) as seller:
        with pytest.raises(InvalidRequest) as invalid:
            seller.payments.CreatePayment(order(shop, 0))
        assert [violation.field for violation in invalid.value.violations] == ["amount"]
        assert invalid.value.request_id
        assert invalid.value.request_id in str(invalid.value)
        with pytest.raises(NotFound) as absent:
            seller.payments.GetPayment(payments_pb2.GetPaymentRequest(payment_id=f"pay_{'0' * 26}"))
        assert absent.value.metadata["resource"] == f"pay_{'0' * 26}"
        with pytest.raises(PermissionDenied):
            seller.payments.CreatePaymentMethod(
                payments_pb2.CreatePaymentMethodRequest(stripe_payment_method_id="pm_card_visa")
            )


@pytest.mark.parametrize("credential", ["nonsense", "pm_sk_test_nonsense", ""])
def test_a_credential_that_does_not_hold_is_told_as_such(shop: Shop, credential: str) -> None:
    with outside(shop, credential) as nobody, pytest.raises(AuthenticationFailed) as refused:
        nobody.identity.GetMe(identity_pb2.GetMeRequest())
    assert refused.value.reason == "CREDENTIAL_INVALID"
    assert refused.value.message == "A valid access token or API key is needed."
    assert refused.value.request_id


def guest(amount: int = 1200) -> payments_pb2.CreatePaymentRequest:
    """Return a request for money from whoever comes."""
    return payments_pb2.CreatePaymentRequest(amount=money_pb2.Money(amount_minor=amount, currency="USD"))


@pytest.fixture(scope="module")
def keys(shop: Shop) -> tuple[str, str]:
    """Return a secret and a publishable key, made through the client."""
    scopes = ["payments:read", "payments:write", "setup_intents:write", "mandates:read", "refunds:write"]
    with outside(shop, shop.seller_token) as seller:
        secret = seller.identity.CreateApiKey(identity_pb2.CreateApiKeyRequest(display_name="server", scopes=scopes))
        shown = seller.identity.CreateApiKey(
            identity_pb2.CreateApiKeyRequest(display_name="page", kind=identity_pb2.ApiKey.PUBLISHABLE)
        )
    return secret.secret, shown.api_key.publishable_key


def test_a_shopper_pays_with_a_publishable_key_and_the_payments_secret(shop: Shop, keys: tuple[str, str]) -> None:
    with outside(shop, keys[0]) as server, outside(shop, keys[1]) as shopper:
        payment = server.payments.CreatePayment(guest())
        confirm = payments_pb2.ConfirmPaymentRequest(
            payment_id=payment.id, client_secret=payment.client_secret, stripe_payment_method_id="pm_card_visa"
        )
        assert shopper.payments.ConfirmPayment(confirm).state == payments_pb2.Payment.SUCCEEDED
        look = payments_pb2.GetPaymentRequest(payment_id=payment.id, client_secret=payment.client_secret)
        assert shopper.payments.GetPayment(look).client_secret == ""
        with pytest.raises(InvalidRequest) as bare:
            shopper.payments.GetPayment(payments_pb2.GetPaymentRequest(payment_id=payment.id))
        assert [violation.field for violation in bare.value.violations] == ["client_secret"]
        with pytest.raises(NotFound):
            shopper.payments.GetPayment(
                payments_pb2.GetPaymentRequest(payment_id=payment.id, client_secret=f"{payment.id}_secret_x")
            )
        with pytest.raises(PermissionDenied) as refused:
            shopper.payments.ListPayments(payments_pb2.ListPaymentsRequest())
        assert refused.value.reason == "CALLER_NOT_ALLOWED"


async def test_a_card_is_saved_on_a_page_and_charged_later_from_asyncio(shop: Shop, keys: tuple[str, str]) -> None:
    address, ca_file = address_of(shop), shop.platform.state["ca_file"]
    async with (
        AsyncPaymesh.outside(address, credential=keys[0], ca_file=ca_file) as server,
        AsyncPaymesh.outside(address, credential=keys[1], ca_file=ca_file) as page,
    ):
        setup = await server.payments.CreateSetupIntent(payments_pb2.CreateSetupIntentRequest(customer_id=shop.user_id))
        save = payments_pb2.ConfirmSetupIntentRequest(
            setup_intent_id=setup.id, client_secret=setup.client_secret, stripe_payment_method_id="pm_card_visa"
        )
        saved = await page.payments.ConfirmSetupIntent(save)
        assert saved.state == payments_pb2.SetupIntent.SUCCEEDED
        with pytest.raises(PreconditionFailed) as done:
            await page.payments.ConfirmSetupIntent(save)
        assert done.value.reason == "SETUP_INTENT_STATE_INVALID"
        charge = order(shop, 900, payment_method_id=saved.payment_method_id)
        charge.confirm = charge.off_session = True
        assert (await server.payments.CreatePayment(charge)).state == payments_pb2.Payment.SUCCEEDED
        asked = payments_pb2.ListMandatesRequest(page_size=1, payment_method_id=saved.payment_method_id)
        given = [mandate.id async for mandate in server.pages(server.payments.ListMandates, asked)]
        assert given == [saved.mandate_id]


def test_a_wallet_is_filled_spent_and_read_page_by_page(shop: Shop) -> None:
    with outside(shop, shop.customer_token) as customer, outside(shop, shop.seller_token) as seller:
        wallet = customer.wallets.CreateWallet(wallets_pb2.CreateWalletRequest(currency="USD"))
        with pytest.raises(Conflict) as taken:
            customer.wallets.CreateWallet(wallets_pb2.CreateWalletRequest(currency="USD"))
        assert (taken.value.reason, taken.value.metadata) == ("REFERENCE_TAKEN", {"field": "currency"})
        for amount in (700, 800):
            fill = wallets_pb2.CreateTopUpRequest(
                wallet_id=wallet.id,
                amount=money_pb2.Money(amount_minor=amount, currency="USD"),
                payment_method_id=shop.method_id,
            )
            assert customer.wallets.CreateTopUp(fill).state == wallets_pb2.TopUp.SUCCEEDED
        use = payments_pb2.ConfirmPaymentRequest(
            payment_id=seller.payments.CreatePayment(order(shop, 1000)).id, wallet_id=wallet.id
        )
        assert customer.payments.ConfirmPayment(use).state == payments_pb2.Payment.SUCCEEDED
        use.payment_id = seller.payments.CreatePayment(order(shop, 501)).id
        with pytest.raises(PreconditionFailed) as short:
            customer.payments.ConfirmPayment(use)
        assert short.value.reason == "INSUFFICIENT_FUNDS"
        statement = wallets_pb2.ListStatementLinesRequest(wallet_id=wallet.id, page_size=1)
        lines = [line.amount.amount_minor for line in customer.pages(customer.wallets.ListStatementLines, statement)]
        assert lines == [-1000, 800, 700]
        top_ups = wallets_pb2.ListTopUpsRequest(wallet_id=wallet.id, page_size=1)
        filled = [one.amount.amount_minor for one in customer.pages(customer.wallets.ListTopUps, top_ups)]
        assert filled == [800, 700]
        assert [one.id for one in customer.pages(customer.wallets.ListWallets, wallets_pb2.ListWalletsRequest())] == [
            wallet.id
        ]


class Scripted:
    """A channel that keeps what is sent and never reaches anybody."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def unary_unary(self, method: str, **_: Any) -> Callable[..., Any]:
        """Return a callable that is refused each time."""

        def send(request: Any, **_: Any) -> Any:
            self.sent.append(request)
            raise Away

        return send


class Away(grpc.RpcError):
    """Nobody there."""

    code = staticmethod(lambda: grpc.StatusCode.UNAVAILABLE)
    details = staticmethod(lambda: "away")
    initial_metadata = trailing_metadata = staticmethod(lambda: ())


PUBLIC = {
    "identity": identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
    "payments": payments_pb2.DESCRIPTOR.services_by_name["PaymentService"],
    "wallets": wallets_pb2.DESCRIPTOR.services_by_name["WalletService"],
    "proofs": proofs_pb2.DESCRIPTOR.services_by_name["ProofService"],
    "notifications": notifications_pb2.DESCRIPTOR.services_by_name["NotificationService"],
}
METHODS = [(name, method) for name, service in PUBLIC.items() for method in service.methods]


@pytest.mark.parametrize(("service", "method"), METHODS, ids=lambda value: getattr(value, "name", value))
def test_every_public_method_is_there_and_every_try_of_a_call_has_one_id(service: str, method: Any) -> None:
    channel = Scripted()
    client = Paymesh(channel, (), Retries(tries=3, first_wait_seconds=0.001, wait_seconds_max=0.01))
    request: Any = message_factory.GetMessageClass(method.input_type)()
    with pytest.raises(Unavailable):
        getattr(getattr(client, service), method.name)(request)
    assert len(channel.sent) == 3
    if "request_id" in method.input_type.fields_by_name:
        assert len({uuid.UUID(sent.request_id) for sent in channel.sent}) == 1
        assert request.request_id == ""
    else:
        named = method.name.startswith(("Get", "List", "Return", "OpenEmailLink", "ReceiveStripeWebhook"))
        assert named, "a method that changes something has no request_id"
    if method.name.startswith("List"):
        repeated = [field.name for field in method.output_type.fields if field.is_repeated]
        assert len(repeated) == 1, "pages() yields the one repeated field"


def test_a_kill_in_the_middle_is_not_noticed_and_charges_once(shop: Shop) -> None:
    patient = Retries(tries=12, wait_seconds_max=3.0, timeout_seconds=40.0)
    with outside(shop, shop.customer_token, retries=patient) as customer:
        payment = shop.payment()
        armed = shop.platform.arm("payments.confirm.after_send")
        confirm = payments_pb2.ConfirmPaymentRequest(payment_id=payment["id"], payment_method_id=shop.method_id)
        customer.payments.ConfirmPayment(confirm)
        assert not armed.exists()
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the payment")
    intent = f"SELECT stripe_payment_intent_id FROM payments WHERE id = '{payment['id']}'"
    assert shop.platform.paid_charges()[shop.platform.sql("payments", intent)[0][0]] == 1


def test_an_absent_platform_is_told_within_the_deadline(shop: Shop) -> None:
    quick = Retries(tries=3, timeout_seconds=3.0)
    away = Paymesh.outside("127.0.0.1:1", ca_file=shop.platform.state["ca_file"], retries=quick)
    with away, pytest.raises(Unavailable):
        away.identity.GetMe(identity_pb2.GetMeRequest())


def test_from_inside_the_mesh_only_who_is_allowed_gets_an_answer(shop: Shop) -> None:
    address = f"127.0.0.1:{shop.platform.state['ports']['identity']}"
    request = identity_pb2.GetContactRequest(user_id=shop.user_id)
    answers: dict[str, str] = {}
    for peer in ("notifications", "payments"):
        tls = Path(shop.platform.folder, "tls", peer)
        with Paymesh.inside(address, domain="identity", tls_dir=tls) as client:
            directory = client.stub(identity_pb2_grpc.IdentityDirectoryServiceStub)
            try:
                answers[peer] = directory.GetContact(request).recipients[0].user_id
            except PaymeshError as error:
                answers[peer] = error.code.name
    assert answers == {"notifications": shop.user_id, "payments": grpc.StatusCode.PERMISSION_DENIED.name}


async def test_from_inside_the_mesh_the_ledger_is_read_by_who_may(shop: Shop) -> None:
    with outside(shop, shop.customer_token) as customer:
        wallet = customer.wallets.CreateWallet(wallets_pb2.CreateWalletRequest(currency="EUR"))
    address = f"127.0.0.1:{shop.platform.state['ports']['wallets']}"
    tls = Path(shop.platform.folder, "tls", "payments")
    async with AsyncPaymesh.inside(address, domain="wallets", tls_dir=tls) as client:
        ledger = client.stub(ledger_pb2_grpc.LedgerServiceStub)
        found = await ledger.LookupWallets(ledger_pb2.LookupWalletsRequest(wallet_ids=[wallet.id]))
        assert [(one.customer_id, one.account.currency) for one in found.wallets] == [(shop.user_id, "EUR")]
        with pytest.raises(PermissionDenied):
            await client.wallets.GetWallet(wallets_pb2.GetWalletRequest(wallet_id=wallet.id))
