"""What a payment tells of a top-up, and what that does to it: a line for each."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from paymesh.payments.v1 import payments_pb2

from servers.kernel.errors import ConcurrentUpdate, Kind, ProviderUnavailable, ResourceNotFound
from servers.kernel.invariant import InvariantBroken
from servers.kernel.money import Money
from servers.runtime.channels import PeerUnavailable
from servers.runtime.outbound import Failure
from servers.wallets.peers import classify
from servers.wallets.render_wallets import parse_news
from servers.wallets.resources import News, NextAction, TopUp, TopUpState, step_of

P, S = payments_pb2.Payment, TopUpState
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SDK = NextAction(type="STRIPE_SDK", stripe_client_secret="secret")


def top_up_in(state: TopUpState, *, seen: int = 5, action: NextAction | None = None) -> TopUp:
    """Return a top-up whose payment was seen at a version."""
    return TopUp(
        id="top_1", owner_id="usr_1", wallet_id="wal_1", amount=Money(amount_minor=1, currency="USD"),
        payment_method_id="pm_1", return_url="", state=state, uncertain=False, payment_id="pay_1", payment_version=seen,
        next_action=action, decline=None, failure_reason="", version=3, create_time=NOW, update_time=NOW,
    )  # fmt: skip


def news_of(state: TopUpState, version: int, *, action: NextAction | None = None) -> News:
    """Return news of a payment's version."""
    return News(
        top_up_id="top_1",
        owner_id="usr_1",
        payment_id="pay_1",
        payment_version=version,
        state=state,
        next_action=action,
    )


@pytest.mark.parametrize(
    ("before", "told", "version", "asked", "trigger"),
    [
        (S.PENDING, S.REQUIRES_ACTION, 6, False, "require_action"),
        (S.PENDING, S.SUCCEEDED, 6, False, "succeed"),
        (S.PENDING, S.FAILED, 6, False, "fail"),
        (S.REQUIRES_ACTION, S.PENDING, 6, False, "return"),
        (S.REQUIRES_ACTION, S.SUCCEEDED, 6, False, "succeed"),
        (S.REQUIRES_ACTION, S.FAILED, 6, False, "fail"),
        (S.PENDING, S.PENDING, 6, False, None),  # a step on its way that is nothing to whoever tops up
        (S.PENDING, S.SUCCEEDED, 5, False, None),  # a repeat
        (S.PENDING, S.SUCCEEDED, 4, False, None),  # late
        (S.PENDING, S.SUCCEEDED, 5, True, "succeed"),  # an answer may say more about the same version
        (S.PENDING, S.SUCCEEDED, 4, True, None),  # an answer that events overtook
        (S.SUCCEEDED, S.PENDING, 6, True, None),
        (S.FAILED, S.REQUIRES_ACTION, 6, True, None),
    ],
)
def test_news_take_an_arrow_or_are_none(
    before: TopUpState, told: TopUpState, version: int, asked: bool, trigger: str | None
) -> None:
    action = SDK if told is S.REQUIRES_ACTION else None
    step = step_of(top_up_in(before), news_of(told, version, action=action), asked=asked)
    assert (step.trigger if step is not None else None) == trigger


def test_an_event_without_the_secret_does_not_take_it_away() -> None:
    known = top_up_in(S.REQUIRES_ACTION, action=SDK)
    bare = NextAction(type="STRIPE_SDK")
    assert step_of(known, news_of(S.REQUIRES_ACTION, 6, action=bare), asked=True) is None
    learnt = step_of(top_up_in(S.REQUIRES_ACTION, action=bare), news_of(S.REQUIRES_ACTION, 5, action=SDK), asked=True)
    assert learnt is not None
    assert (learnt.trigger, learnt.changes["next_action"]) == ("note", SDK)


@pytest.mark.parametrize("name", P.State.keys())
def test_each_state_of_a_payment_means_something(name: str) -> None:
    payment = P(id="pay_1", state=P.State.Value(name), captures=[payments_pb2.Capture(id="cap_1")])
    payment.certainty = payments_pb2.UNKNOWN
    news = parse_news(payment)
    expected = {
        "SUCCEEDED": S.SUCCEEDED,
        "REQUIRES_ACTION": S.REQUIRES_ACTION,
        "CANCELED": S.FAILED,
        "EXPIRED": S.FAILED,
    }
    assert news.state is expected.get(name, S.PENDING)
    assert (news.charged is not None) == (name == "SUCCEEDED")
    assert (news.next_action is not None) == (name == "REQUIRES_ACTION")
    assert news.failure_reason == ("canceled" if news.state is S.FAILED else "")
    assert news.uncertain == (news.state in (S.PENDING, S.REQUIRES_ACTION))


def test_a_captured_payment_has_one_capture() -> None:
    with pytest.raises(InvariantBroken):
        parse_news(P(id="pay_1", state=P.SUCCEEDED))


class RateLimited(ConcurrentUpdate):
    """Too many declines of one customer."""

    kind, reason = Kind.EXHAUSTED, "RATE_LIMITED"


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ProviderUnavailable(), Failure.NOT_SENT),
        (PeerUnavailable("stripe"), Failure.UNKNOWN),
        (ConcurrentUpdate("pay_1"), Failure.UNKNOWN),
        (ResourceNotFound("pm_1"), None),
        (RateLimited("pay_1"), None),
        (KeyError("ours"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_failed_call_says_what_is_known_of_the_card(error: Exception, failure: Failure | None) -> None:
    verdict = classify(error)
    assert (verdict[0] if verdict is not None else None) is failure
