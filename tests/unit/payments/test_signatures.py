"""Stripe's signatures: true ones of either live secret are taken, and nothing else."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from servers.payments.domain import FeePlan
from servers.payments.gateway_stripe import Fault, SignatureInvalid
from servers.payments.gateway_stripe.signatures import TOLERANCE, verify
from servers.payments.settings import PaymentsSettings

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW, FOREIGN = "whsec_the_old_one", "whsec_the_new_one", "whsec_of_somebody_else"
LIVE = (OLD, NEW)
SAMPLE = 10_000


def signed(body: bytes, secret: str, at: datetime) -> str:
    """Return the header as Stripe's own SDK makes it."""
    header: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(at.timestamp()))
    return header


def fault_of(body: bytes, header: str, *, secrets: tuple[str, ...] = LIVE) -> Fault | None:
    """Return what is wrong with a webhook; None where it is taken."""
    try:
        verify(body, header, secrets, now=NOW)
    except SignatureInvalid as invalid:
        return invalid.fault
    return None


def test_either_live_secret_may_sign_and_a_secret_that_was_replaced_may_not() -> None:
    body = b'{"id": "evt_1"}'
    assert [fault_of(body, signed(body, secret, NOW)) for secret in LIVE] == [None, None]
    # While Stripe rolls a secret it signs with both: one of them is enough, wherever it stands.
    both = f"{signed(body, OLD, NOW)},{signed(body, NEW, NOW).partition(',')[2]}"
    assert [fault_of(body, both, secrets=(secret,)) for secret in LIVE] == [None, None]
    assert fault_of(body, signed(body, OLD, NOW), secrets=(NEW,)) is Fault.FORGED


def test_the_tolerance_is_five_minutes_each_way() -> None:
    body, second = b"{}", timedelta(seconds=1)
    table = [
        (-TOLERANCE - second, Fault.STALE),
        (-TOLERANCE, None),
        (timedelta(), None),
        (TOLERANCE, None),
        (TOLERANCE + second, Fault.EARLY),
    ]
    assert [fault_of(body, signed(body, NEW, NOW + shift)) for shift, _ in table] == [fault for _, fault in table]


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("", Fault.MISSING),
        ("t=1", Fault.MALFORMED),
        ("v1=aa", Fault.MALFORMED),
        ("t=soon,v1=aa", Fault.MALFORMED),
        ("t=-5,v1=aa", Fault.MALFORMED),
        ("t=1,t=2,v1=aa", Fault.MALFORMED),
        ("t=1767268800,v0=aa", Fault.MALFORMED),
        ("t=1767268800,v1=é", Fault.MALFORMED),
        ("t=9999999999999999999,v1=aa", Fault.MALFORMED),
        ("t=1767268800," + ",".join(["v1=aa"] * 9), Fault.MALFORMED),
        ("t=1767268800,v1=", Fault.FORGED),
    ],
)
def test_what_is_no_header_of_stripes_says_so(header: str, fault: Fault) -> None:
    assert fault_of(b"{}", header) is fault


def test_what_only_looks_like_the_same_text_is_not_the_same_bytes() -> None:
    body = '{"name": "é"}'.encode()
    header = signed(body, NEW, NOW)
    assert fault_of(body, header) is None
    assert fault_of(unicodedata.normalize("NFD", body.decode()).encode(), header) is Fault.FORGED
    assert fault_of(body + b" ", header) is Fault.FORGED
    assert fault_of(b"\xff\xfe", "t=1767268800,v1=aa") is Fault.FORGED


def _forged(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    return body, signed(body, FOREIGN + str(dice.random()), NOW)


def _replayed(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    late = TOLERANCE + timedelta(seconds=dice.randint(1, 10**7))
    return body, signed(body, dice.choice(LIVE), NOW + dice.choice((-late, late)))


def _modified(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    place, bit = dice.randrange(len(body)), 1 << dice.randrange(7)
    return body[:place] + bytes([body[place] ^ bit]) + body[place + 1 :], signed(body, dice.choice(LIVE), NOW)


def _redated(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    old = NOW - TOLERANCE - timedelta(seconds=dice.randint(1, 10**6))
    given = signed(body, dice.choice(LIVE), old).partition(",")[2]
    return body, f"t={int(NOW.timestamp()) - dice.randint(0, 299)},{given}"


def _damaged(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    header = signed(body, dice.choice(LIVE), NOW)
    place = dice.randrange(header.index("v1=") + 3, len(header))
    other = dice.choice([c for c in "0123456789abcdef" if c != header[place]])
    return body, header[:place] + other + header[place + 1 :]


def _cut(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    header = signed(body, dice.choice(LIVE), NOW)
    return body, header[: dice.randrange(len(header))]


def _borrowed(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    return body, signed(body[1:] or b"x", dice.choice(LIVE), NOW)


WAYS: list[Callable[[random.Random, bytes], tuple[bytes, str]]] = [
    *(_forged, _replayed, _modified, _redated, _damaged, _cut, _borrowed),
]


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(min_value=0))
def test_of_ten_thousand_forged_stale_or_modified_webhooks_none_is_taken(seed: int) -> None:
    dice = random.Random(seed)  # the same sample for the same seed
    taken, refused = 0, 0
    for number in range(SAMPLE):
        body = f'{{"id": "evt_{dice.getrandbits(64)}", "type": "payment_intent.succeeded"}}'.encode()
        assert fault_of(body, signed(body, dice.choice(LIVE), NOW)) is None
        bad_body, header = WAYS[number % len(WAYS)](dice, body)
        fault = fault_of(bad_body, header)
        taken += fault is None
        refused += fault is not None
    assert (taken, refused) == (0, SAMPLE)


def settings_with(secrets: str) -> PaymentsSettings:
    """Return the settings, as far as they are about webhooks."""
    return PaymentsSettings.model_construct(
        stripe_webhook_secrets=PaymentsSettings._one_or_two(SecretStr(secrets)),
        fee_plan=FeePlan(version="1", basis_points=0),
    )


def test_the_settings_take_one_secret_or_two() -> None:
    assert settings_with(OLD).webhook_secrets == (OLD,)
    assert settings_with(f"{OLD}, {NEW}").webhook_secrets == LIVE


@pytest.mark.parametrize("secrets", ["", "whsec_", f"{OLD},", f"{OLD},,{NEW}", f"{OLD},{NEW},{FOREIGN}", "sk_test_1"])
def test_the_settings_refuse_a_secret_that_everybody_knows(secrets: str) -> None:
    with pytest.raises((ValueError, ValidationError), match="one or two secrets"):
        settings_with(secrets)
