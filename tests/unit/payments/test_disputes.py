"""Where disputes go: from everywhere to everything that Stripe may say, and in which order money moves on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations, product

import pytest

from servers.kernel.money import Money
from servers.payments.domain import (
    DISPUTE,
    Dispute,
    DisputeNews,
    DisputeStage,
    DisputeState,
    FeePayer,
    FundsMovement,
    NoWay,
    steps_to,
    walk_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INQUIRY, CHARGEBACK, AGAIN = DisputeStage
Place = tuple[str, DisputeStage]
NEW: Place = ("NEW", INQUIRY)
WARNING: Place = ("EARLY_WARNING", INQUIRY)


def usd(amount: int) -> Money:
    """Return dollars in cents."""
    return Money(amount_minor=amount, currency="USD")


def movement(name: str, amount: int, fee: int = 0, *, minutes: int = 0) -> FundsMovement:
    """Return a balance transaction."""
    return FundsMovement(id=name, amount=usd(amount), fee=usd(fee), create_time=NOW + timedelta(minutes=minutes))


def news(state: str, *movements: FundsMovement, inquiry: bool = False) -> DisputeNews:
    """Return what Stripe says."""
    return DisputeNews(
        stripe_dispute_id="du_1", payment_intent_id="pi_1", charge_id="ch_1", is_inquiry=inquiry,
        state=DisputeState[state], amount=usd(1000), reason="fraudulent", evidence_due_time=None, has_evidence=False,
        past_due=False, submission_count=0, create_time=NOW, movements=movements,
    )  # fmt: skip


def dispute(state: str, stage: DisputeStage = CHARGEBACK, **more: object) -> Dispute:
    """Return a dispute."""
    base = Dispute(
        id="dsp_1", payment_id="pay_1", owner_id="mer_1", top_up_id="", stripe_dispute_id="du_1", stripe_warning_id="",
        stage=stage, state=DisputeState[state], amount=usd(1000), at_risk=usd(1000), reason="fraudulent",
        evidence_due_time=None, has_evidence=False, past_due=False, submission_count=0, accepting=False,
        fee_payer=FeePayer.MERCHANT, stage_time=NOW, version=1, create_time=NOW, update_time=NOW,
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]  # fields by name


WAYS: dict[tuple[Place, str, bool], str] = {
    (NEW, "NEEDS_RESPONSE", True): "open",
    (NEW, "UNDER_REVIEW", True): "open submit",
    (NEW, "CLOSED", True): "open close",
    (NEW, "PREVENTED", True): "warn prevent",
    (NEW, "NEEDS_RESPONSE", False): "open",
    (NEW, "UNDER_REVIEW", False): "open submit",
    (NEW, "WON", False): "open submit win",
    (NEW, "LOST", False): "open lose",
    (WARNING, "NEEDS_RESPONSE", True): "dispute",
    (WARNING, "UNDER_REVIEW", True): "dispute submit",
    (WARNING, "CLOSED", True): "dispute close",
    (WARNING, "PREVENTED", True): "prevent",
    (WARNING, "NEEDS_RESPONSE", False): "dispute",
    (WARNING, "UNDER_REVIEW", False): "dispute submit",
    (WARNING, "WON", False): "dispute submit win",
    (WARNING, "LOST", False): "dispute lose",
    (("NEEDS_RESPONSE", INQUIRY), "NEEDS_RESPONSE", True): "",
    (("NEEDS_RESPONSE", INQUIRY), "UNDER_REVIEW", True): "submit",
    (("NEEDS_RESPONSE", INQUIRY), "CLOSED", True): "close",
    (("NEEDS_RESPONSE", INQUIRY), "NEEDS_RESPONSE", False): "escalate",
    (("NEEDS_RESPONSE", INQUIRY), "UNDER_REVIEW", False): "escalate submit",
    (("NEEDS_RESPONSE", INQUIRY), "WON", False): "escalate submit win",
    (("NEEDS_RESPONSE", INQUIRY), "LOST", False): "escalate lose",
    (("UNDER_REVIEW", INQUIRY), "UNDER_REVIEW", True): "",
    (("UNDER_REVIEW", INQUIRY), "CLOSED", True): "close",
    (("UNDER_REVIEW", INQUIRY), "NEEDS_RESPONSE", False): "escalate",
    (("UNDER_REVIEW", INQUIRY), "UNDER_REVIEW", False): "escalate submit",
    (("UNDER_REVIEW", INQUIRY), "WON", False): "escalate submit win",
    (("UNDER_REVIEW", INQUIRY), "LOST", False): "escalate lose",
    (("CLOSED", INQUIRY), "CLOSED", True): "",
    (("PREVENTED", INQUIRY), "PREVENTED", True): "",
    (("PREVENTED", INQUIRY), "PREVENTED", False): "take_back",
    (("PREVENTED", CHARGEBACK), "PREVENTED", False): "",
    (NEW, "PREVENTED", False): "warn prevent take_back",
    (WARNING, "PREVENTED", False): "prevent take_back",
    (("WON", CHARGEBACK), "WON", False): "",
    (("WON", CHARGEBACK), "NEEDS_RESPONSE", False): "reopen",
    (("WON", CHARGEBACK), "UNDER_REVIEW", False): "reopen submit",
    (("WON", CHARGEBACK), "LOST", False): "reopen lose",
    (("WON", AGAIN), "WON", False): "",
    **{
        ((state, stage), told, False): way
        for stage in (CHARGEBACK, AGAIN)
        for state, told, way in (
            ("NEEDS_RESPONSE", "NEEDS_RESPONSE", ""),
            ("NEEDS_RESPONSE", "UNDER_REVIEW", "submit"),
            ("NEEDS_RESPONSE", "WON", "submit win"),
            ("NEEDS_RESPONSE", "LOST", "lose"),
            ("UNDER_REVIEW", "UNDER_REVIEW", ""),
            ("UNDER_REVIEW", "WON", "win"),
            ("UNDER_REVIEW", "LOST", "lose"),
            ("ACCEPTED", "LOST", "lose"),
            ("LOST", "LOST", ""),
        )
    },
}
"""Where no way is listed, there is none."""
PLACES: list[Place] = [
    NEW,
    WARNING,
    *product(("NEEDS_RESPONSE", "UNDER_REVIEW", "ACCEPTED", "WON", "LOST"), (CHARGEBACK, AGAIN)),
    *product(("NEEDS_RESPONSE", "UNDER_REVIEW", "CLOSED", "PREVENTED"), (INQUIRY,)),
    ("PREVENTED", CHARGEBACK),
]
TOLD = [
    *((state, False) for state in ("NEEDS_RESPONSE", "UNDER_REVIEW", "WON", "LOST", "PREVENTED")),
    *((state, True) for state in ("NEEDS_RESPONSE", "UNDER_REVIEW", "CLOSED", "PREVENTED")),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join((place[0], place[1].name)))
@pytest.mark.parametrize(("told", "inquiry"), TOLD)
def test_every_news_takes_the_listed_way_or_none(place: Place, told: str, inquiry: bool) -> None:
    state = None if place == NEW else DisputeState[place[0]]
    way = WAYS.get((place, told, inquiry))
    if way is None:
        with pytest.raises(NoWay, match="no way leads there"):
            steps_to(state, place[1], news(told, inquiry=inquiry))
        return
    assert [trigger for trigger, _ in steps_to(state, place[1], news(told, inquiry=inquiry))] == way.split()


def test_a_stage_begins_with_its_arrow() -> None:
    assert steps_to(DisputeState.NEEDS_RESPONSE, INQUIRY, news("LOST")) == (
        ("escalate", CHARGEBACK),
        ("lose", CHARGEBACK),
    )
    assert steps_to(DisputeState.WON, CHARGEBACK, news("UNDER_REVIEW")) == (("reopen", AGAIN), ("submit", AGAIN))
    assert steps_to(None, INQUIRY, news("NEEDS_RESPONSE", inquiry=True)) == (("open", INQUIRY),)


def test_what_was_conceded_is_accepted_before_it_is_lost() -> None:
    way = steps_to(DisputeState.NEEDS_RESPONSE, CHARGEBACK, news("LOST"), accepting=True)
    assert [trigger for trigger, _ in way] == ["accept", "lose"]
    won = steps_to(DisputeState.NEEDS_RESPONSE, CHARGEBACK, news("WON"), accepting=True)
    assert [trigger for trigger, _ in won] == ["submit", "win"]


def test_money_is_withdrawn_before_the_end_and_reinstated_after_it() -> None:
    taken, given = movement("txn_1", -1000, 1500), movement("txn_2", 1000, -1500, minutes=5)
    for order in permutations((taken, given)):
        walked = [(trigger, stage) for trigger, stage, _ in walk_of(None, INQUIRY, news("WON", *order))]
        assert walked == [(trigger, CHARGEBACK) for trigger in ("open", "submit", "withdraw", "win", "reinstate")]
    late = walk_of(DisputeState.LOST, CHARGEBACK, news("LOST", taken, given), known=frozenset({"txn_1"}))
    assert late == (("reinstate", CHARGEBACK, given),)


def test_a_chargeback_counts_until_it_is_won_and_holds_until_it_ends() -> None:
    rows = {
        (state.name, stage): (one.counted_minor, one.is_open_chargeback)
        for state, stage in product(DisputeState, (INQUIRY, CHARGEBACK))
        for one in [dispute(state.name, stage)]
    }
    assert {place for place, (counted, _) in rows.items() if counted} == {
        (state.name, CHARGEBACK) for state in DisputeState if state is not DisputeState.WON
    }
    assert {place for place, (_, is_open) in rows.items() if is_open} == {
        (state, CHARGEBACK) for state in ("NEEDS_RESPONSE", "UNDER_REVIEW", "ACCEPTED")
    }


def test_only_a_chargeback_that_waits_for_its_merchant_can_be_accepted() -> None:
    assert dispute("NEEDS_RESPONSE").available_actions == ("accept",)
    assert dispute("NEEDS_RESPONSE", AGAIN).available_actions == ("accept",)
    assert dispute("NEEDS_RESPONSE", INQUIRY).available_actions == ()
    assert dispute("NEEDS_RESPONSE", accepting=True).available_actions == ()
    others = [state.name for state in DisputeState if state is not DisputeState.NEEDS_RESPONSE]
    assert all(dispute(name).available_actions == () for name in others)


def test_the_fee_is_what_all_movements_took() -> None:
    assert dispute("LOST").fee is None
    both = (movement("txn_1", -1000, 1500), movement("txn_2", 1000, -1500))
    assert dispute("WON", movements=both[:1]).fee == usd(1500)
    assert dispute("WON", movements=both).fee == usd(0)


def test_every_arrow_of_a_dispute_is_told() -> None:
    kinds = ("opened", "updated", "funds_withdrawn", "funds_reinstated", "won", "lost", "closed")
    assert {arrow.event for arrow in DISPUTE.arrows} == {f"dispute.{kind}" for kind in kinds}
