"""Disputes: what opens them, the evidence, the issuer's word, and the money that goes and comes back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import stripe

from tests.support.sandbox import SandboxProcess, authorized, eventually, guest_payment

DAY = 24 * 3600
FEE = 1500


async def disputed(client: stripe.StripeClient, card: str = "pm_card_createDispute", amount: int = 1000) -> Any:
    """Pay with a card whose holder disputes it, and return the dispute."""
    intent = await guest_payment(client, card, amount)
    return (await client.v1.disputes.list_async({"payment_intent": intent.id})).data[0]


async def opened(sandbox: SandboxProcess, client: stripe.StripeClient, **body: Any) -> Any:
    """Have a payment of 1000 disputed."""
    intent = await guest_payment(client, "pm_card_visa", 1000)
    made = sandbox.switch("disputes", payment_intent=intent.id, **body)
    return await client.v1.disputes.retrieve_async(made["id"])


def moves(dispute: Any) -> list[tuple[str, int, int, int]]:
    """Return the money of a dispute: category, amount, fee, net."""
    return [(one.reporting_category, one.amount, one.fee, one.net) for one in dispute.balance_transactions]


async def submitted(client: stripe.StripeClient, dispute: Any, text: str) -> Any:
    """Submit a text as evidence."""
    return await client.v1.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": text}})


async def ended(sandbox: SandboxProcess, client: stripe.StripeClient, dispute: Any) -> Any:
    """Let the issuer read the evidence, and return what became of the dispute."""
    sandbox.switch("clock", advance_seconds=6)
    return await client.v1.disputes.retrieve_async(dispute.id)


WITHDRAWN = ("dispute", -1000, FEE, -1000 - FEE)
REINSTATED = ("dispute_reversal", 1000, -FEE, 1000 + FEE)
ON_CARDS = [
    ("pm_card_createDispute", "needs_response", "fraudulent", "chargeback", "10.4"),
    ("pm_card_createDisputeProductNotReceived", "needs_response", "product_not_received", "chargeback", "13.1"),
    ("pm_card_createDisputeInquiry", "warning_needs_response", "fraudulent", "inquiry", "10"),
    ("pm_card_createComplianceDispute", "needs_response", "noncompliant", "compliance", None),
    ("pm_card_createCe3EligibleDispute", "needs_response", "fraudulent", "chargeback", "10.4"),
]


@pytest.mark.parametrize(("card", "status", "reason", "case", "code"), ON_CARDS)
async def test_a_card_brings_its_dispute(
    sandbox: SandboxProcess, card: str, status: str, reason: str, case: str, code: str | None
) -> None:
    client = sandbox.client()
    dispute = await disputed(client, card)
    assert (dispute.status, dispute.reason, dispute.amount, dispute.currency) == (status, reason, 1000, "usd")
    seen = dispute.payment_method_details.card
    assert (seen.brand, seen.case_type, seen.network_reason_code) == ("visa", case, code)
    is_inquiry = case == "inquiry"
    assert moves(dispute) == ([] if is_inquiry else [WITHDRAWN])
    assert dispute.is_charge_refundable == is_inquiry
    details = dispute.evidence_details
    assert (details.has_evidence, details.past_due, details.submission_count) == (False, False, 0)
    assert details.due_by % DAY == DAY - 1
    assert 8 * DAY <= details.due_by - dispute.created < 9 * DAY
    charge = await client.v1.charges.retrieve_async(dispute.charge)
    assert (charge.disputed, charge.refunded, charge.amount_refunded) == (True, False, 0)
    assert sandbox.fetch(f"/v1/charges/{charge.id}/dispute")["id"] == dispute.id


async def test_the_events_come_between_the_charge_and_the_payment(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    events = [event async for event in (await client.v1.events.list_async({"limit": 20})).auto_paging_iter()]
    about = (dispute.id, dispute.charge, dispute.payment_intent)
    told = [event.type for event in reversed(events) if event.data.object["id"] in about]
    assert told == [
        "payment_intent.created",
        "charge.succeeded",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "payment_intent.succeeded",
    ]
    eventually(lambda: len(sandbox.hooks.about(dispute.id)) == 2, "the webhooks")


async def test_a_manual_payment_is_disputed_when_it_is_captured(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await guest_payment(client, "pm_card_createDispute", 1000, capture_method="manual")
    assert (await client.v1.disputes.list_async({"payment_intent": intent.id})).data == []
    await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 600})
    [dispute] = (await client.v1.disputes.list_async({"charge": str(intent.latest_charge)})).data
    assert dispute.amount == 600
    held = await authorized(client)
    refused = httpx.post(f"{sandbox.url}/_sandbox/disputes", json={"charge": held.latest_charge})
    assert (refused.status_code, "not been captured" in refused.text) == (400, True)


async def test_a_charge_may_be_disputed_several_times(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await guest_payment(client, "pm_card_createMultipleDisputes", 1001)
    disputes = (await client.v1.disputes.list_async({"payment_intent": intent.id})).data
    assert sorted(one.amount for one in disputes) == [500, 501]
    assert sandbox.fetch(f"/v1/charges/{intent.latest_charge}/dispute")["id"] == disputes[0].id


@pytest.mark.parametrize(
    ("text", "status", "money", "events"),
    [
        ("winning_evidence", "won", [WITHDRAWN, REINSTATED], {"charge.dispute.funds_reinstated"}),
        ("losing_evidence", "lost", [WITHDRAWN], set()),
    ],
)
async def test_the_issuer_reads_the_evidence_and_answers(
    sandbox: SandboxProcess, text: str, status: str, money: list[Any], events: set[str]
) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    answer = await submitted(client, dispute, text)
    assert (answer.status, answer.evidence.uncategorized_text) == ("under_review", text)
    details = answer.evidence_details
    assert (details.has_evidence, details.submission_count, details.past_due) == (True, 1, False)
    with pytest.raises(stripe.InvalidRequestError, match="was submitted"):
        await submitted(client, dispute, "more")
    final = await ended(sandbox, client, dispute)
    assert (final.status, moves(final)) == (status, money)
    assert final.is_charge_refundable == (status == "won")
    expected = {"created", "funds_withdrawn", "updated", "closed"}
    names = {f"charge.dispute.{name}" for name in expected} | events
    eventually(lambda: set(sandbox.hooks.types(dispute.id)) == names, "the webhooks")
    closed = [hook for hook in sandbox.hooks.about(dispute.id) if hook.event["type"] == "charge.dispute.closed"]
    assert closed[0].verified().data.object.status == status
    for refused in (submitted(client, dispute, "late"), client.v1.disputes.close_async(dispute.id)):
        with pytest.raises(stripe.InvalidRequestError, match="This dispute is already closed"):
            await refused
    assert (await client.v1.charges.retrieve_async(final.charge)).disputed


async def test_other_evidence_waits_for_the_issuer(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    await submitted(client, dispute, "The cardholder signed for it.")
    sandbox.switch("clock", advance_seconds=100 * DAY)
    assert (await client.v1.disputes.retrieve_async(dispute.id)).status == "under_review"
    assert sandbox.switch(f"disputes/{dispute.id}/win", return_fee=False)["status"] == "won"
    final = await client.v1.disputes.retrieve_async(dispute.id)
    assert moves(final) == [WITHDRAWN, ("dispute_reversal", 1000, 0, 1000)]


async def test_a_draft_is_not_submitted(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    draft: Any = {"evidence": {"customer_name": "Ada", "product_description": "A lamp"}, "submit": False}
    answer = await client.v1.disputes.update_async(dispute.id, draft)
    assert (answer.status, answer.evidence.customer_name) == ("needs_response", "Ada")
    assert (answer.evidence_details.has_evidence, answer.evidence_details.submission_count) == (True, 0)
    named = await client.v1.disputes.update_async(dispute.id, {"metadata": {"case": "c_1"}})
    assert (named.status, named.metadata["case"]) == ("needs_response", "c_1")
    emptied: Any = {"evidence": {"customer_name": "", "product_description": ""}, "submit": False}
    assert not (await client.v1.disputes.update_async(dispute.id, emptied)).evidence_details.has_evidence
    with pytest.raises(stripe.InvalidRequestError, match="no evidence to submit"):
        await client.v1.disputes.update_async(dispute.id, {"submit": True})
    await client.v1.disputes.update_async(dispute.id, draft)
    assert (await client.v1.disputes.update_async(dispute.id, {"submit": True})).status == "under_review"
    with pytest.raises(stripe.InvalidRequestError, match="was submitted"):
        await client.v1.disputes.update_async(dispute.id, draft)


async def test_evidence_has_its_limits(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    long = ("access_activity_log", "cancellation_policy_disclosure", "cancellation_rebuttal", "product_description",
            "duplicate_charge_explanation", "refund_policy_disclosure", "refund_refusal_explanation")  # fmt: skip
    fits: Any = {"evidence": dict.fromkeys(long, "x" * 20_000), "submit": False}
    await client.v1.disputes.update_async(dispute.id, fits)
    for name, text, message, param in (
        ("product_description", "x" * 20_001, "must be at most 20000 characters", "evidence[product_description]"),
        ("uncategorized_text", "x" * 10_001, "limited to 150000", "evidence"),
        ("receipt", "file_none", "No such file upload", "evidence[receipt]"),
        ("colour", "red", "unknown parameter", "evidence[colour]"),
    ):
        given: Any = {"evidence": {name: text}, "submit": False}
        with pytest.raises(stripe.InvalidRequestError, match=message) as refused:
            await client.v1.disputes.update_async(dispute.id, given)
        assert refused.value.param == param
    read = await client.v1.disputes.retrieve_async(dispute.id)
    assert (read.status, read.evidence.uncategorized_text) == ("needs_response", None)


async def test_a_merchant_accepts_a_dispute(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute, inquiry = await disputed(client), await disputed(client, "pm_card_createDisputeInquiry")
    lost = await client.v1.disputes.close_async(dispute.id)
    assert (lost.status, moves(lost)) == ("lost", [WITHDRAWN])
    assert (await client.v1.disputes.close_async(inquiry.id)).status == "warning_closed"
    eventually(lambda: "charge.dispute.closed" in sandbox.hooks.types(dispute.id), "the webhook")
    for path in ("dispute", "dispute/close"):
        answer = httpx.post(
            f"{sandbox.url}/v1/charges/{dispute.charge}/{path}", headers={"authorization": "Bearer sk_test_sandbox"}
        )
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "This dispute is already closed")


async def test_an_inquiry_becomes_a_chargeback_with_a_deadline_of_its_own(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    inquiry = await disputed(client, "pm_card_createDisputeInquiry")
    answer = await submitted(client, inquiry, "escalate_inquiry_evidence")
    assert (answer.status, moves(answer), answer.is_charge_refundable) == ("warning_under_review", [], True)
    chargeback = await ended(sandbox, client, inquiry)
    assert (chargeback.status, moves(chargeback)) == ("needs_response", [WITHDRAWN])
    assert chargeback.is_charge_refundable is False
    card = chargeback.payment_method_details.card
    assert (card.case_type, card.network_reason_code) == ("chargeback", "10.4")
    again = await submitted(client, inquiry, "losing_evidence")
    assert (again.status, again.evidence_details.submission_count) == ("under_review", 2)
    assert (await ended(sandbox, client, inquiry)).status == "lost"


@pytest.mark.parametrize("text", ["winning_evidence", "losing_evidence"])
async def test_an_inquiry_that_is_answered_is_closed_and_takes_nothing(sandbox: SandboxProcess, text: str) -> None:
    client = sandbox.client()
    inquiry = await disputed(client, "pm_card_createDisputeInquiry")
    await submitted(client, inquiry, text)
    final = await ended(sandbox, client, inquiry)
    assert (final.status, moves(final)) == ("warning_closed", [])
    refund = await client.v1.refunds.create_async({"charge": final.charge})
    assert refund.status == "succeeded"


async def test_time_ends_what_nobody_answers(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    chargeback, inquiry = await disputed(client), await disputed(client, "pm_card_createDisputeInquiry")
    late = await opened(sandbox, client, due_in_seconds=60)
    sandbox.switch("clock", advance_seconds=3600)
    answer = await submitted(client, late, "Sorry for the delay.")
    assert (answer.status, answer.evidence_details.past_due) == ("under_review", True)
    sandbox.switch("clock", advance_seconds=chargeback.evidence_details.due_by - chargeback.created)
    assert (await client.v1.disputes.retrieve_async(chargeback.id)).status == "needs_response"
    sandbox.switch("clock", advance_seconds=DAY)
    read = await client.v1.disputes.retrieve_async(chargeback.id)
    assert (read.status, read.evidence_details.submission_count) == ("lost", 0)
    assert (await client.v1.disputes.retrieve_async(inquiry.id)).status == "warning_needs_response"
    sandbox.switch("clock", advance_seconds=120 * DAY)
    assert (await client.v1.disputes.retrieve_async(inquiry.id)).status == "warning_closed"


async def test_a_charge_that_was_charged_back_is_not_refunded(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    for asked in ({"charge": dispute.charge}, {"payment_intent": dispute.payment_intent, "amount": 1}):
        params: Any = asked
        with pytest.raises(stripe.InvalidRequestError, match="charged back; cannot issue a refund") as refused:
            await client.v1.refunds.create_async(params)
        assert (refused.value.code, refused.value.http_status) == ("charge_disputed", 400)
    sandbox.switch(f"disputes/{dispute.id}/win")
    refund = await client.v1.refunds.create_async({"charge": dispute.charge})
    assert refund.amount == 1000
    assert (await client.v1.disputes.retrieve_async(dispute.id)).is_charge_refundable is False


async def test_a_refund_in_full_ends_what_an_inquiry_could_become(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    inquiry = await disputed(client, "pm_card_createDisputeInquiry")
    await client.v1.refunds.create_async({"charge": inquiry.charge, "amount": 400})
    assert (await client.v1.disputes.retrieve_async(inquiry.id)).is_charge_refundable
    await client.v1.refunds.create_async({"charge": inquiry.charge})
    assert not (await client.v1.disputes.retrieve_async(inquiry.id)).is_charge_refundable
    eventually(lambda: "charge.dispute.updated" in sandbox.hooks.types(inquiry.id), "the webhook")
    refused = httpx.post(f"{sandbox.url}/_sandbox/disputes/{inquiry.id}/escalate", json={})
    assert (refused.status_code, "refunded in full" in refused.text) == (400, True)
    await submitted(client, inquiry, "escalate_inquiry_evidence")
    assert (await ended(sandbox, client, inquiry)).status == "warning_closed"


async def test_a_refund_that_waits_fails_where_the_bank_takes_the_money_first(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await guest_payment(client, "pm_card_pendingRefund", 1000)
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 300})
    sandbox.switch("disputes", payment_intent=intent.id)
    sandbox.switch("clock", advance_seconds=3600)
    read = await client.v1.refunds.retrieve_async(refund.id)
    assert (read.status, read.failure_reason) == ("failed", "charge_for_pending_refund_disputed")


async def test_a_dispute_may_be_for_more_than_was_paid_and_for_what_was_refunded(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    more = await opened(sandbox, client, amount=1200, reason="product_unacceptable", fee=2000)
    assert (more.amount, moves(more)) == (1200, [("dispute", -1200, 2000, -3200)])
    intent = await guest_payment(client, "pm_card_visa", 1000)
    await client.v1.refunds.create_async({"payment_intent": intent.id})
    made = sandbox.switch("disputes", payment_intent=intent.id)
    assert (made["amount"], made["is_charge_refundable"]) == (1000, False)


async def test_the_money_comes_and_goes_apart_from_the_status(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await opened(sandbox, client, withdraw=False)
    assert (dispute.status, moves(dispute)) == ("needs_response", [])
    sandbox.switch(f"disputes/{dispute.id}/withdraw", amount=700)
    sandbox.switch(f"disputes/{dispute.id}/reinstate", amount=200, fee=0)
    sandbox.switch(f"disputes/{dispute.id}/lose")
    sandbox.switch(f"disputes/{dispute.id}/win")  # the issuer thinks better of it
    final = await client.v1.disputes.retrieve_async(dispute.id)
    assert final.status == "won"
    assert moves(final) == [
        ("dispute", -700, FEE, -700 - FEE),
        ("dispute_reversal", 200, 0, 200),
        ("dispute_reversal", 500, -FEE, 500 + FEE),
    ]
    nothing = httpx.post(f"{sandbox.url}/_sandbox/disputes/{dispute.id}/reinstate", json={})
    assert nothing.status_code == 400


async def test_what_was_won_is_reopened(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await opened(sandbox, client)
    early = httpx.post(f"{sandbox.url}/_sandbox/disputes/{dispute.id}/reopen", json={})
    assert early.status_code == 400
    sandbox.switch(f"disputes/{dispute.id}/win")
    sandbox.switch(f"disputes/{dispute.id}/reopen", due_in_seconds=3600)
    again = await client.v1.disputes.retrieve_async(dispute.id)
    assert (again.status, moves(again)) == ("needs_response", [WITHDRAWN, REINSTATED, ("dispute", -1000, 0, -1000)])
    await submitted(client, dispute, "winning_evidence")
    final = await ended(sandbox, client, dispute)
    assert (final.status, sum(move[3] for move in moves(final))) == ("won", 0)


@pytest.mark.parametrize(
    ("case", "money", "refundable"), [("block", [], True), ("resolution", [("dispute", -1000, 0, -1000)], False)]
)
async def test_what_was_prevented_is_over_at_once(
    sandbox: SandboxProcess, case: str, money: list[Any], refundable: bool
) -> None:
    client = sandbox.client()
    dispute = await opened(sandbox, client, case=case)
    assert (dispute.status, moves(dispute), dispute.is_charge_refundable) == ("prevented", money, refundable)
    assert dispute.evidence_details.due_by is None
    eventually(lambda: "charge.dispute.closed" in sandbox.hooks.types(dispute.id), "the webhook")
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        await submitted(client, dispute, "winning_evidence")


async def test_some_banks_take_no_response(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await opened(sandbox, client, due_in_seconds=0)
    assert dispute.evidence_details.due_by == 0
    with pytest.raises(stripe.InvalidRequestError, match="takes no response"):
        await submitted(client, dispute, "winning_evidence")


async def test_a_compliance_dispute_is_answered_for_a_fee(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for card, name in (
        ("pm_card_createComplianceDispute", "visa_compliance"),
        ("pm_card_createMastercardComplianceDispute", "mastercard_compliance"),
    ):
        dispute = await disputed(client, card)
        assert dispute.enhanced_eligibility_types == [name]
        with pytest.raises(stripe.InvalidRequestError, match="has to be acknowledged") as refused:
            await submitted(client, dispute, "It is our right.")
        assert refused.value.param == f"evidence[enhanced_evidence][{name}][fee_acknowledged]"
        given: Any = {"enhanced_evidence": {name: {"fee_acknowledged": True}}, "uncategorized_text": "It is our right."}
        answer = await client.v1.disputes.update_async(dispute.id, {"evidence": given})
        assert answer.status == "under_review"
        assert answer.evidence_details.enhanced_eligibility[name]["status"] == "fee_acknowledged"


async def test_compelling_evidence_says_what_it_still_misses(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client, "pm_card_createCe3EligibleDispute")
    standing = dispute.evidence_details.enhanced_eligibility["visa_compelling_evidence_3"]
    assert (standing.status, len(standing.required_actions)) == ("requires_action", 4)
    prior = [{"charge": "ch_before", "product_description": "A lamp"} for _ in range(2)]
    compelling: Any = {"disputed_transaction": {"customer_email_address": "a@b.example"}}
    compelling |= {"prior_undisputed_transactions": prior}
    given: Any = {"evidence": {"enhanced_evidence": {"visa_compelling_evidence_3": compelling}}, "submit": False}
    answer: Any = await client.v1.disputes.update_async(dispute.id, given)
    standing = answer.evidence_details.enhanced_eligibility["visa_compelling_evidence_3"]
    assert standing.required_actions == ["missing_disputed_transaction_description", "missing_merchandise_or_services"]
    compelling["disputed_transaction"] |= {"product_description": "A lamp", "merchandise_or_services": "merchandise"}
    answer = await client.v1.disputes.update_async(dispute.id, given)
    assert answer.evidence_details.enhanced_eligibility["visa_compelling_evidence_3"]["status"] == "qualified"


async def test_disputes_are_listed_and_expanded(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    first, second = await disputed(client), await disputed(client)
    page = await client.v1.disputes.list_async({"limit": 1, "created": {"gte": first.created}})
    assert ([one.id for one in page.data], page.has_more) == ([second.id], True)
    after = await client.v1.disputes.list_async({"limit": 1, "starting_after": second.id})
    assert [one.id for one in after.data] == [first.id]
    read: Any = await client.v1.disputes.retrieve_async(first.id, {"expand": ["charge", "payment_intent"]})
    assert (read.charge.disputed, read.payment_intent.status) == (True, "succeeded")
    booked: Any = await client.v1.balance_transactions.list_async({"source": first.id, "expand": ["data.source"]})
    assert [(one.type, one.source.id, one.status) for one in booked.data] == [("adjustment", first.id, "available")]
    assert booked.data[0].description == f"Chargeback withdrawal for {first.charge}"
    with pytest.raises(stripe.InvalidRequestError, match="No such dispute: 'du_none'") as absent:
        await client.v1.disputes.retrieve_async("du_none")
    assert (absent.value.http_status, absent.value.param) == (404, "dispute")
    plain = await guest_payment(client, "pm_card_visa", 1000)
    none = httpx.get(
        f"{sandbox.url}/v1/charges/{plain.latest_charge}/dispute",
        headers={"authorization": "Bearer sk_test_sandbox"},
    )
    assert (none.status_code, none.json()["error"]["message"]) == (404, f"No dispute for charge: {plain.latest_charge}")


async def test_an_issuer_warns_of_fraud(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await guest_payment(client, "pm_card_createIssuerFraudRecord", 1000)
    [warning] = (await client.v1.radar.early_fraud_warnings.list_async({"payment_intent": intent.id})).data
    assert (warning.actionable, warning.fraud_type, warning.charge) == (True, "misc", intent.latest_charge)
    eventually(lambda: sandbox.hooks.types(warning.id) == ["radar.early_fraud_warning.created"], "the webhook")
    charge = await client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert charge.disputed is False
    await client.v1.refunds.create_async({"payment_intent": intent.id})
    read: Any = await client.v1.radar.early_fraud_warnings.retrieve_async(warning.id, {"expand": ["charge"]})
    assert (read.actionable, read.charge.refunded) == (False, True)
    made = sandbox.switch(
        "early_fraud_warnings", charge=(await disputed(client)).charge, fraud_type="made_with_stolen_card"
    )
    assert (made["actionable"], made["fraud_type"]) == (False, "made_with_stolen_card")


async def test_a_switch_that_makes_no_sense_is_refused(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await guest_payment(client, "pm_card_visa", 1000)
    for path, body in (
        ("disputes", {}),
        ("disputes", {"payment_intent": intent.id, "reason": "bored"}),
        ("disputes", {"payment_intent": intent.id, "case": "war"}),
        ("disputes", {"payment_intent": intent.id, "amount": 0}),
        ("disputes", {"payment_intent": intent.id, "currency": "zzz"}),
        ("early_fraud_warnings", {"payment_intent": intent.id, "fraud_type": "none"}),
    ):
        assert httpx.post(f"{sandbox.url}/_sandbox/{path}", json=body).status_code == 400
    assert (await client.v1.charges.retrieve_async(str(intent.latest_charge))).disputed is False
    assert httpx.post(f"{sandbox.url}/_sandbox/disputes", json={"charge": "ch_none"}).status_code == 404
    assert httpx.post(f"{sandbox.url}/_sandbox/disputes/du_none/win", json={}).status_code == 404
    assert httpx.post(f"{sandbox.url}/_sandbox/disputes/du_none/eat", json={}).status_code == 404


async def test_a_kill_loses_no_deadline(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    await submitted(client, dispute, "winning_evidence")
    sandbox.kill()
    sandbox.start()
    assert (await ended(sandbox, sandbox.client(), dispute)).status == "won"


async def test_the_same_key_submits_once(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    dispute = await disputed(client)
    key: Any = {"idempotency_key": f"evidence-{dispute.id}"}
    given: Any = {"evidence": {"uncategorized_text": "Signed."}}
    for _ in range(2):
        answer = await client.v1.disputes.update_async(dispute.id, given, key)
        assert answer.evidence_details.submission_count == 1
    with pytest.raises(stripe.InvalidRequestError) as closed:
        await client.v1.disputes.update_async(dispute.id, given)
    assert closed.value.param == "evidence"
