"""Card numbers in text: found however they are written, and not found where there are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paymesh.identity.v1 import identity_pb2
from paymesh.payments.v1 import payments_pb2

from sandbox.stripe.cards import CARDS
from servers.runtime.card_numbers import HOLDS_NUL, LOOKS_LIKE_A_CARD, holds_card_number, unfit_texts


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.token)
def test_each_test_card_is_found_however_it_is_written(card: object) -> None:
    number: str = card.number  # type: ignore[attr-defined]
    grouped = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    for text in (number, grouped, grouped.replace(" ", "-"), f"my card is {number}, thanks", f"({grouped})"):
        assert holds_card_number(text), text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "order 20261124-0017",
        "4242 4242 4242 4243",
        "+1 415 555 2671",
        "pay_01m86q2qgbeagarh5kfdtjsvz3",
        "2026-11-24T12:00:00.123456Z",
        "0000000000000000",
        "x4242424242424242",
        "3f2a4242-4242-4242-4242-42424242aaaa",
        "42424242-4242-4242-8aaa-aaaaaaaaaaaa",
    ],
)
def test_what_is_no_card_number_passes(text: str) -> None:
    assert not holds_card_number(text)


@given(st.integers(min_value=0, max_value=10**15 - 1), st.sampled_from("23456"))
def test_every_number_that_a_card_could_have_is_found(rest: int, first: str) -> None:
    digits = f"{first}{rest:014d}"[:15]
    doubled = [int(d) * 2 - 9 if int(d) > 4 else int(d) * 2 for d in digits[::-2]]
    check = -(sum(doubled) + sum(int(d) for d in digits[-2::-2])) % 10
    assert holds_card_number(f"{digits}{check}")


@given(st.uuids())
def test_no_request_id_is_mistaken_for_a_card(identifier: object) -> None:
    assert not holds_card_number(str(identifier))
    assert not holds_card_number(f"confirm-{identifier}")


def test_fields_are_named_and_passwords_are_left_alone() -> None:
    number = CARDS[0].number
    request = payments_pb2.CreatePaymentRequest(description=number, metadata={"note": f"card {number}"})
    assert sorted(unfit_texts(request)) == [("description", LOOKS_LIKE_A_CARD), ("metadata", LOOKS_LIKE_A_CARD)]
    register = identity_pb2.RegisterUserRequest(password=number, display_name="Ada")
    assert list(unfit_texts(register)) == []


def test_nul_is_found_in_fields_lists_keys_and_values() -> None:
    request = payments_pb2.CreatePaymentRequest(description="a\0b", metadata={"k\0": "v"})
    assert sorted(unfit_texts(request)) == [("description", HOLDS_NUL), ("metadata", HOLDS_NUL)]
    key = identity_pb2.CreateApiKeyRequest(scopes=["payments:read", "\0"])
    assert list(unfit_texts(key)) == [("scopes", HOLDS_NUL)]
    assert list(unfit_texts(identity_pb2.RegisterUserRequest(password="\0" * 8))) == []
