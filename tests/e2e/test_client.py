"""The Python client against the running platform: outside and inside, in threads and in asyncio."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from paymesh.identity.v1 import identity_pb2, identity_pb2_grpc
from paymesh.payments.v1 import payments_pb2
from paymesh.type.v1 import money_pb2
from paymesh.wallets.v1 import wallets_pb2
from paymesh_client import (
    AsyncPaymesh,
    AuthenticationFailed,
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


def order(shop: Shop, amount: int = 1000, **more: str) -> payments_pb2.CreatePaymentRequest:
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
    with outside(shop, "nonsense") as nobody, pytest.raises(AuthenticationFailed):
        nobody.identity.GetMe(identity_pb2.GetMeRequest())


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
