"""The switches by name: what `GET /_sandbox/` answers, and the table in docs/sandbox.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch."""

    method: str
    path: str
    """After `/_sandbox/`."""
    takes: str
    """The fields of its body, with their defaults, or of its query."""
    does: str


SWITCHES: Final = (
    Switch("GET", "", "", "this list"),
    Switch("GET", "healthz", "", "says that it is up"),
    Switch(
        "GET",
        "log",
        "method, path (a pattern)",
        "the latest 1,000 requests, oldest first: id, method, path, idempotency_key, params, "
        "status (null: no answer), replayed, fault; card numbers and security codes are left out",
    ),
    Switch("DELETE", "log", "", "forgets them"),
    Switch("GET", "stats", "", "what was counted: paid charges by intent, requests by endpoint, refunds"),
    Switch(
        "GET",
        "ledger",
        "",
        "all balance transactions, oldest first, each with the balance after it and its automatic payout; the sums of "
        "each currency by status and by type",
    ),
    Switch("GET", "clock", "", "the present second"),
    Switch(
        "POST",
        "clock",
        "advance_seconds or now",
        "moves business time forward; what becomes due on the way happens at its own time",
    ),
    Switch(
        "POST",
        "faults",
        "method, path (a pattern), kind, times = 1, and what the kind takes",
        "makes the next fitting requests go wrong",
    ),
    Switch("GET", "faults", "", "what is left of both kinds of rules"),
    Switch(
        "DELETE",
        "faults",
        "",
        "lets everything go well again: no rules of either kind, no weather, nothing arranged for refunds",
    ),
    Switch(
        "POST",
        "weather",
        "seed = 0, preset or requests and webhooks, max_delay_seconds = 2",
        "begins a weather: faults by chance",
    ),
    Switch("GET", "weather", "", "the chances, and the latest 1,000 that came of them"),
    Switch("DELETE", "weather", "", "ends it"),
    Switch("POST", "limits", "reads_per_second, writes_per_second", "rate limits; 0 is none"),
    Switch(
        "POST",
        "webhooks",
        "paused, copies, delay_seconds, reorder",
        "how all events are delivered; `reorder`: the newest first",
    ),
    Switch(
        "POST",
        "webhooks/faults",
        "type (a pattern), kind, times = 1, and what the kind takes",
        "makes the first delivery of the next fitting events go wrong",
    ),
    Switch(
        "POST",
        "webhooks/invent",
        "type, object, signature = true",
        "posts an event that never happened, once, signed truly, with another secret (`forge`) or long ago (`stale`)",
    ),
    Switch("POST", "events/{id}/resend", "", "delivers an event once more"),
    Switch("GET", "payment_intents/{id}/authenticate", "", "the cardholder's 3-D Secure page"),
    Switch("POST", "payment_intents/{id}/authenticate", "succeed = true", "what the cardholder does there"),
    Switch("GET", "setup_intents/{id}/authenticate", "", "the same page for a setup"),
    Switch("POST", "setup_intents/{id}/authenticate", "succeed = true", "what the cardholder does there"),
    Switch(
        "POST",
        "disputes",
        "charge or payment_intent, amount, currency, reason = fraudulent, case = chargeback, due_in_seconds, "
        "withdraw = true, fee = 1500, compelling = false",
        "a cardholder disputes a captured charge, for any amount. `case`: chargeback, "
        "inquiry, compliance; block and resolution are `prevented` at once. `due_in_seconds` of 0: no response is taken. "
        "`withdraw` of false: the money goes later",
    ),
    Switch("POST", "disputes/{id}/escalate", "due_in_seconds, withdraw = true", "an inquiry becomes a chargeback"),
    Switch(
        "POST",
        "disputes/{id}/win",
        "reinstate = true, return_fee = true",
        "the issuer finds for the merchant; also for one that was lost",
    ),
    Switch("POST", "disputes/{id}/lose", "", "the issuer finds for the cardholder"),
    Switch(
        "POST",
        "disputes/{id}/reopen",
        "due_in_seconds, withdraw = true",
        "what was won needs a response again (pre-arbitration)",
    ),
    Switch("POST", "disputes/{id}/withdraw", "amount, fee = 1500", "takes money, whatever the status"),
    Switch(
        "POST",
        "disputes/{id}/reinstate",
        "amount, fee",
        "gives money back, whatever the status; all that was taken by default",
    ),
    Switch(
        "POST",
        "early_fraud_warnings",
        "charge or payment_intent, fraud_type = misc",
        "the issuer reports a charge as fraud",
    ),
    Switch(
        "POST",
        "refunds",
        "status = succeeded, pending_reason = processing, then, failure_reason = lost_or_stolen_card, "
        "after_seconds = 3600, charge, times = 1",
        "how the next refunds go: `pending` or `requires_action` at first, `succeeded` or "
        "`failed` later. One that waits for `insufficient_funds` or `charge_pending` has taken no money",
    ),
    Switch("POST", "refunds/{id}/settle", "", "a refund that waited arrives"),
    Switch(
        "POST", "refunds/{id}/fail", "reason = lost_or_stolen_card", "the bank sends it back, also one that succeeded"
    ),
    Switch("POST", "payouts", "currency", "an automatic payout of all that is available"),
    Switch("POST", "payouts/{id}/send", "", "it is on its way"),
    Switch("POST", "payouts/{id}/pay", "", "it arrives, or fails where its destination says so"),
    Switch("POST", "payouts/{id}/fail", "code = could_not_process", "the bank sends it back, also one that was paid"),
    Switch("POST", "topups/{id}/succeed", "", "the money is there"),
    Switch("POST", "topups/{id}/fail", "", "the bank refuses it"),
    Switch("POST", "topups/{id}/reverse", "", "the bank takes the money back"),
    Switch("POST", "fees", "amount, currency, description = Radar", "Stripe takes a fee of its own (`stripe_fee`)"),
)
